"""sweep.sbatch under an `srun` and a `scontrol` of our own, which run what they are given here.

Once with real Ray nodes; its ways to end with programs that only sleep in their place.
"""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests_support.cluster_files import SBATCH
from tests_support.local_nodes import variables

from cluster.free_ports import free_ports
from cluster.processes import end_tree, start_tree

# A step: its options are Slurm's, the rest is run. What it is not told it takes from the job's
# variables, as Slurm's own does (src/srun/libsrun/opt.c). On the other node, which is this machine
# too, Ray gets folders and ports of its own.
SRUN = """#!/usr/bin/env bash
echo "srun $*" >>"$CALLS"
other=
while [[ $1 == --* ]]; do
    case $1 in
    --exclude=*) other=yes ;;
    --nodes=*) SLURM_JOB_NUM_NODES=${1#*=} ;;
    --ntasks=*) SLURM_NTASKS=${1#*=} ;;
    --export=*) SLURM_EXPORT_ENV=${1#*=} ;;
    esac
    shift
done
[[ $SLURM_NTASKS -eq $SLURM_JOB_NUM_NODES ]] || exec echo "not one task on each node"
[[ $SLURM_EXPORT_ENV == ALL ]] || unset PATH RAY_AUTH_MODE RAY_AUTH_TOKEN_PATH
command=()
for word; do
    if [[ -n $other ]]; then
        [[ $word == --temp-dir=* ]] && word+=-other
        [[ $word == --*-port=?* && $word != *=0 ]] && word=${word%=*}=$((${word#*=} - 12000))
    fi
    command+=("$word")
    [[ $1 == rm && $word == /tmp/* ]] && command+=("$word-other")
done
exec "${command[@]}"
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$CALLS"
[[ $1 == show ]] && printf '%s\\n' "$HEAD_ADDRESS" other-node
true
"""
SWEEP = """
import pathlib, signal, sys, time
import ray

ray.init(logging_level="ERROR", log_to_driver=False)
cpus = ray.cluster_resources()["CPU"]
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))  # after ray.init(), which takes it

@ray.remote
def where():
    return ray.get_runtime_context().get_node_id()

ray.get(where.remote())
print(f"sweep {sys.argv[1:]} on {len(ray.nodes())} nodes, {cpus:g} CPUs", flush=True)
while not asked:
    time.sleep(0.1)
pathlib.Path("checkpoint").write_text("written")
print("stopped in good order", flush=True)
"""
SLEEPING_RAY = """#!/usr/bin/env bash
echo "ray $*" >>"$CALLS"
[[ $1 == start ]] && exec sleep 60
true
"""
SLEEPING_PYTHON = """#!/usr/bin/env bash
echo "python $*" >>"$CALLS"
trap 'exit 7' TERM
echo begun
[[ ${!#} == --end ]] && exit 3
for _ in {1..600}; do sleep 0.1; done
"""


def program(path: Path, text: str) -> None:
    """Write a program that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def first_of_ten_free_ports() -> int:
    """Return the first of ten in a row, a multiple of ten below 32000."""
    while True:
        found = free_ports(20)
        first = -(-found[0] // 10) * 10
        if first < 32_000 and {*range(first, first + 10)} <= {*found}:
            return first


class Job:
    """The batch script as Slurm runs it, in a folder."""

    def __init__(
        self, folder: Path, *arguments: str, nodes: int, address: str, memory: dict[str, str]
    ) -> None:
        self.folder = folder
        # By which it gets the ten ports from 20000 + 10 * (number % 1200) on.
        self.number = 100_800 + (first_of_ten_free_ports() - 20_000) // 10
        program(folder / "bin" / "srun", SRUN)
        program(folder / "bin" / "scontrol", SCONTROL)
        env = variables(
            CALLS=str(folder / "calls"),
            HEAD_ADDRESS=address,
            HOME=str(folder),
            SLURM_CPUS_PER_TASK="1",
            SLURM_EXPORT_ENV="NONE",  # as some sites have it
            SLURM_JOB_ID=str(self.number),
            SLURM_JOB_NODELIST="node[1-2]",
            SLURM_JOB_NUM_NODES=str(nodes),
            SLURM_NTASKS=str(nodes),
            **memory,
            UNSHIFT_VENV=str(Path(sys.prefix) if nodes > 1 else folder / "venv"),
        )
        env["PATH"] = f"{folder / 'bin'}{os.pathsep}{env['PATH']}"
        self._log = (folder / "log").open("wb")
        self.root = start_tree(
            ["/bin/bash", str(SBATCH), *arguments], env=env, cwd=folder, output=self._log
        )

    @property
    def script(self) -> int:
        """Return the process of the script, below the root of its tree."""
        (child,) = Path(f"/proc/{self.root.pid}/task/{self.root.pid}/children").read_text().split()
        return int(child)

    @property
    def said(self) -> str:
        """Return what the script and its steps have printed."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def calls(self) -> list[str]:
        """Return the calls of our programs, one a line."""
        return (self.folder / "calls").read_text().splitlines()

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Return once it is so. AssertionError with the log when the script ends before."""
        deadline = time.monotonic() + 150
        while not is_so():
            assert self.root.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def end(self) -> None:
        """End what is left of it."""
        end_tree(self.root)
        self._log.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def start_job(
        *arguments: str, nodes: int = 1, address: str = "127.0.0.1", **memory: str
    ) -> Job:
        jobs.append(Job(tmp_path, *arguments, nodes=nodes, address=address, memory=memory))
        return jobs[-1]

    yield start_job
    for job in jobs:
        job.end()


def command_lines() -> bytes:
    """Return the command lines of all processes, which every user of a machine may read."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue  # it has just ended
    return b"\n".join(found)


@pytest.mark.slow
def test_before_its_time_is_over_the_sweep_is_told_and_the_job_is_queued_again(
    start: Callable[..., Job], tmp_path: Path
) -> None:
    from ray._private.services import get_node_ip_address

    (tmp_path / "sweep.py").write_text(SWEEP)
    job = start("sweep.py", "--trials", "4", nodes=2, address=get_node_ip_address())
    job.wait_until(lambda: "sweep [" in job.said)
    assert "sweep ['--trials', '4'] on 2 nodes, 2 CPUs" in job.said
    (token,) = (tmp_path / ".unshift-runs").glob("*/ray_token")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (token, token.parent)]
    assert modes == [0o600, 0o700]
    assert len(token.read_text()) == 64 and token.read_text().encode() not in command_lines()
    os.kill(job.script, signal.SIGTERM)  # as --signal=B:TERM@300 does, to the script alone
    assert job.root.wait(timeout=240) == 0
    assert (tmp_path / "checkpoint").read_text() == "written"
    assert job.calls[-1] == f"scontrol requeue {job.number}"
    assert job.said.endswith("stopped before its end: requeued\n")
    assert not token.parent.exists()
    assert not list(Path("/tmp").glob(f"unshift-{job.number}*"))


@pytest.mark.parametrize(
    ("sent", "status", "is_requeued"),
    [(signal.SIGTERM, 7, True), (signal.SIGINT, 7, False), (None, 3, False)],
)
def test_only_what_slurm_ends_goes_back_to_the_queue(
    start: Callable[..., Job],
    tmp_path: Path,
    sent: signal.Signals | None,
    status: int,
    is_requeued: bool,
) -> None:
    program(tmp_path / "venv" / "bin" / "ray", SLEEPING_RAY)
    program(tmp_path / "venv" / "bin" / "python", SLEEPING_PYTHON)
    job = start("sweep.py", *([] if sent else ["--end"]))
    if sent:
        job.wait_until(lambda: "begun" in job.said)
        os.kill(job.script, sent)
    assert job.root.wait(timeout=240) == status
    assert (f"scontrol requeue {job.number}" in job.calls) is is_requeued
    assert not list((tmp_path / ".unshift-runs").iterdir())


def head_words(job: Job) -> list[str]:
    """Return the words of the call that starts the head, once it was made."""

    def found() -> list[str]:
        return [call for call in job.calls if call.startswith("ray start")]

    job.wait_until(lambda: "begun" in job.said and bool(found()))
    (call,) = found()
    return call.split()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"SLURM_MEM_PER_NODE": "16384"}, [f"--memory={12 * 2**30}"]),
        ({"SLURM_MEM_PER_CPU": "10240"}, [f"--memory={6 * 2**30}"]),
        ({"SLURM_MEM_PER_NODE": "0"}, []),
        ({}, []),
    ],
)
def test_ray_is_told_what_memory_the_job_was_given(
    start: Callable[..., Job], tmp_path: Path, given: dict[str, str], expected: list[str]
) -> None:
    """By itself it would see all of the machine: Slurm's limit is in a group of the job's own."""
    program(tmp_path / "venv" / "bin" / "ray", SLEEPING_RAY)
    program(tmp_path / "venv" / "bin" / "python", SLEEPING_PYTHON)
    assert [w for w in head_words(start("sweep.py", **given)) if "--memory=" in w] == expected


def test_the_head_is_not_at_an_address_of_its_machine_alone(
    start: Callable[..., Job], tmp_path: Path
) -> None:
    """To which /etc/hosts may lead: here a node's name is 127.0.1.1."""
    if not subprocess.check_output(["hostname", "-I"], text=True).strip():
        pytest.skip("this machine has no network")
    program(tmp_path / "venv" / "bin" / "ray", SLEEPING_RAY)
    program(tmp_path / "venv" / "bin" / "python", SLEEPING_PYTHON)
    words = head_words(start("sweep.py", address="127.0.1.1"))
    (address,) = [word for word in words if word.startswith("--node-ip-address=")]
    assert not address.startswith("--node-ip-address=127.")


TERM_AS_THE_SWEEP_BEGINS = """
trap '[[ $BASH_COMMAND != "sweep=\\$!" ]] || kill -TERM $$' DEBUG
"""


def test_a_signal_that_comes_as_the_sweep_begins_ends_it(
    start: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "venv" / "bin" / "ray", SLEEPING_RAY)
    program(tmp_path / "venv" / "bin" / "python", SLEEPING_PYTHON)
    (tmp_path / "first").write_text(TERM_AS_THE_SWEEP_BEGINS)
    monkeypatch.setenv("BASH_ENV", str(tmp_path / "first"))  # what every bash reads first
    job = start("sweep.py")
    assert job.root.wait(timeout=240) in (7, 128 + signal.SIGTERM)  # it may not have begun to hear
    assert job.calls[-1] == f"scontrol requeue {job.number}"


def test_a_head_that_does_not_start_ends_the_job(start: Callable[..., Job], tmp_path: Path) -> None:
    program(tmp_path / "venv" / "bin" / "ray", "#!/bin/sh\nexit 1\n")
    job = start("sweep.py")
    assert job.root.wait(timeout=240) == 1
    assert job.said == "Ray's head did not start on 127.0.0.1\n"
    assert not list((tmp_path / ".unshift-runs").iterdir())


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [({}, 1, "hand this file to sbatch"), ({"SLURM_JOB_ID": "1"}, 2, "which sweep?")],
)
def test_without_slurm_or_a_sweep_it_says_so(given: dict[str, str], status: int, said: str) -> None:
    done = subprocess.run(
        ["bash", str(SBATCH)], env=variables(**given), capture_output=True, text=True
    )
    assert done.returncode == status and said in done.stderr
