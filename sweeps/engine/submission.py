"""What is looked at before a sweep is queued: here, at the cluster, and on its nodes."""

import ast
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from json import loads
from pathlib import Path
from typing import Any

from cluster.commit import count_changes
from cluster.dashboard import Dashboard
from cluster.job import commit_variable, name_job, queue
from cluster.nodes import Node, list_nodes, read_version
from cluster.package import LIMIT_BYTES, Package, mebibytes, pack
from cluster.ray_cli import ClusterFailed
from cluster.shadowing import find_shadowing
from cluster.small_job import collect
from sweeps.engine.arguments import check_arguments, read_arguments
from sweeps.engine.readiness import ANSWER, tell_absent

PINNED = ("torch", "ray", "optuna", "mlflow")
"""Packages whose versions decide whether a sweep here and one there are the same."""
MOST_WORKERS = 8
"""So many nodes beside the head are asked; on a large cluster they are of few kinds."""

Told = Mapping[str, Any]
"""What a node says of itself: `faults`, `absent` terms of the loss, and `wanted` ones."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A script, its arguments, and the folder that goes along."""

    script: Path
    """Relative to the folder."""
    arguments: Sequence[str]
    folder: Path
    gpus: int
    """Waited for before the sweep begins; 0: it begins with what there is."""
    again_command: str = field(default="")
    """What a user types to go on, with {trials} for the number of trials."""

    @cached_property
    def package(self) -> Package:
        """Return the files that go along."""
        return pack(self.folder)

    @property
    def entrypoint(self) -> list[str]:
        """Return the job's command."""
        again = ["--again-command", self.again_command] if self.again_command else []
        command = ["python", self.script.as_posix(), *self.arguments, *again]
        if not self.gpus:
            return command
        return ["python", "-m", "cluster.workers", "--gpus", str(self.gpus), "--", *command]

    def queue(self, dashboard: Dashboard) -> str:
        """Queue it and return the job's name."""
        job = name_job(str(self.script))
        variables = commit_variable(self.folder)
        queue(dashboard, job, self.entrypoint, package=self.package, variables=variables)
        return job


def check_here(submission: Submission, *, note: Callable[[str], object]) -> list[str]:
    """Return in a line each what must be put right before a cluster is asked at all."""
    package = submission.package
    faults = [*_check_script(submission), *_check_size(package)]
    faults += check_arguments(submission.arguments)
    for path, hidden in find_shadowing(package, submission.script):
        faults.append(f"{path} hides {hidden} module {path.stem}: rename it")
    note(
        f"package: {mebibytes(package.size_bytes)} in {len(package.files)} files; "
        f"largest: {package.name_largest()}"
    )
    if changes := count_changes(submission.folder):
        note(f"{changes} uncommitted changes go along: trials are recorded as of commit+changes")
    return faults


def check_cluster(submission: Submission, dashboard: Dashboard) -> list[str]:
    """Return what is wrong with the cluster, as its head tells it. Raises ClusterFailed."""
    faults = []
    wanted, there = read_pins(submission.folder)["ray"], read_version(dashboard)
    if there != wanted:
        faults.append(f"ray is {there} there, and {wanted} here: build its image from this lock")
    if not submission.gpus:
        faults += _check_gpus(submission.arguments, list_nodes(dashboard))
    return faults


def check_nodes(submission: Submission, dashboard: Dashboard) -> list[str]:
    """Return what is wrong on the nodes, all asked at the same time; of the head alone, if it is.

    Raises ClusterFailed where one of them does not answer.
    """
    workers = choose_workers(list_nodes(dashboard))
    check = uuid.uuid4().hex[:12]
    names = {node.address: f"check-{check}-{node.address}" for node in workers}
    leave = [part for name in names.values() for part in ("--leave", name)]
    of_head: dict[str, tuple[str | None, list[str]]] = {f"check-{check}": (None, leave)}
    of_others = {name: (host, ["--take", name]) for host, name in names.items()}
    return _ask(submission, dashboard, of_head | of_others)


def choose_workers(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes beside the head that are asked, those with GPUs first, one an address."""
    head = {node.address for node in nodes if node.is_head}
    others = {node.address: node for node in nodes if node.address not in head}
    return sorted(others.values(), key=lambda node: (-node.gpus, node.address))[:MOST_WORKERS]


def gather_faults(answers: Mapping[str | None, Told]) -> list[str]:
    """Return each fault once, of the head (None) and other nodes by address: what they told, and
    the terms of the loss that the head would have trained where they are absent."""
    wanted = answers[None]["wanted"]
    faults = dict.fromkeys(answers[None]["faults"])
    for host, told in answers.items():
        if host is not None:
            found = [*told["faults"], *tell_absent(told["absent"], wanted)]
            faults |= dict.fromkeys(f"{host}: {fault}" for fault in found)
    return list(faults)


def read_pins(folder: Path) -> dict[str, str]:
    """Return the versions that are wanted of PINNED: a lock's in the folder, else those here."""
    lock = folder / "requirements.lock"
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    locked = dict(re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE))
    return {name: (locked.get(name) or _version_here(name)).partition("+")[0] for name in PINNED}


def _version_here(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _check_script(submission: Submission) -> list[str]:
    script = submission.folder / submission.script
    if not submission.package.has(script):
        return [f"{submission.script} would stay here: .gitignore or .rayignore names it"]
    try:
        ast.parse(script.read_bytes(), filename=str(submission.script))
    except (SyntaxError, ValueError) as error:
        return [f"{submission.script} is no Python that runs: {error}"]
    return []


def _check_size(package: Package) -> list[str]:
    if package.size_bytes <= LIMIT_BYTES:
        return []
    return [
        f"{mebibytes(package.size_bytes)} would be uploaded, and the limit is "
        f"{mebibytes(LIMIT_BYTES)}: {package.name_largest()}: name what is not needed in .rayignore"
    ]


def _check_gpus(arguments: Sequence[str], nodes: Sequence[Node]) -> list[str]:
    options = read_arguments(arguments)
    share = options.gpus_per_trial
    wanted = share if share is not None else float(options.size == "log")
    most, total = max((n.gpus for n in nodes), default=0.0), sum(n.gpus for n in nodes)
    if wanted <= (most if wanted > 1 else total):
        return []
    asked = f"--gpus-per-trial {share:g}" if share is not None else "--size log"
    return [
        f"{asked} needs {wanted:g} GPU on a machine, and {most:g} is the most there: "
        "--gpus N before the -- waits for N, --gpus-per-trial 0 trains on CPUs"
    ]


def _ask(
    submission: Submission,
    dashboard: Dashboard,
    questions: Mapping[str, tuple[str | None, list[str]]],
) -> list[str]:
    """Ask nodes, all at the same time, by small jobs of these names, on these hosts; the head
    comes first, and where something is wrong with it, what others say is not waited for."""
    pins = [f"--expect={name}=={wanted}" for name, wanted in read_pins(submission.folder).items()]
    for job, (host, options) in questions.items():
        command = ["python", "-m", "sweeps.engine.readiness", *pins, *options]
        command += ["--", submission.script.as_posix(), *submission.arguments]
        # Others import no script of the user's, who may have put much beside it.
        package = submission.package if host is None else submission.package.of_code()
        queue(dashboard, job, command, package=package, host=host)
    answers: dict[str | None, Told] = {}
    for job, (host, _) in questions.items():
        answer = collect(dashboard, job)
        if not answer.last_line.startswith(ANSWER):
            raise ClusterFailed(f"{host or 'the head'} cannot be looked at: {answer.last_line}")
        answers[host] = loads(answer.last_line.removeprefix(ANSWER))
        if host is None and answers[host]["faults"]:
            break
    return gather_faults(answers)
