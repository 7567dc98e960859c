"""The commands of cluster/ that start Ray, run: compose's head, and a worker of aws.yaml.

Only addresses, ports and folders are others, and `ray start` stays in the foreground. Those of
sweep.sbatch are run in test_sbatch.py.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from ray.autoscaler._private.util import with_head_node_ip
from tests_support.cluster_files import CLUSTER, read_compose, read_manifests, read_ray_up
from tests_support.local_nodes import Node, knock, make_secrets, replaced, variables

from cluster.free_ports import free_ports

pytestmark = pytest.mark.slow

SERVICES = read_compose({"HOME": "/home/me"})["services"]


@dataclass(frozen=True)
class Cluster:
    """A head and a worker that run, and their ports; where there are two, the head's is first."""

    ip: str
    gcs: int
    dashboard: int
    client: int
    raylets: list[int]
    objects: list[int]
    agents: list[int]
    metrics: list[int]
    """Of the two nodes, then the dashboard's and the autoscaler's."""
    env: dict[str, str]
    """Of a client that has the token."""


def own_ip() -> str:
    """Return the address that Ray finds for this machine."""
    from ray._private.services import get_node_ip_address

    return get_node_ip_address()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    ports = free_ports(13)
    there = Cluster(
        own_ip(), *ports[:3], ports[3:5], ports[5:7], ports[7:9], ports[9:], _environment(folder)
    )
    there.env["DASHBOARD_METRIC_PORT"], there.env["AUTOSCALER_METRIC_PORT"] = map(str, ports[11:])
    head = _head_command(there, secrets=folder / "secrets")
    worker = _worker_command(there)
    health = _health(SERVICES["head"], {"8265": str(there.dashboard)})
    worker_health = _health(
        SERVICES["worker"], {"127.0.0.1:52365": f"{there.ip}:{there.agents[1]}"}
    )
    with (
        Node(head, env=there.env, log=folder / "head.log") as first,
        ExitStack() as stack,
    ):
        first.wait_until(lambda: _answer(there.gcs, GCS, token="") == "UNAUTHENTICATED")
        second = stack.enter_context(Node(worker, env=there.env, log=folder / "worker.log"))
        first.wait_until(lambda: subprocess.run(health).returncode == 0)
        second.wait_until(lambda: subprocess.run(worker_health).returncode == 0)
        there.env["RAY_ADDRESS"] = f"{there.ip}:{there.gcs}"
        yield there
    for node in range(2):
        shutil.rmtree(_ray_folder(node))


def _environment(folder: Path) -> dict[str, str]:
    secrets = make_secrets(folder / "secrets")
    given = {
        name: value.replace("/run/secrets", str(secrets)).replace("/home/unshift", str(folder))
        for name, value in SERVICES["head"]["environment"].items()
    }
    return variables(**given)


def _head_command(cluster: Cluster, *, secrets: Path) -> str:
    changes = {
        "/run/secrets": str(secrets),
        "getent ahostsv4 head-inside": f"getent ahostsv4 {cluster.ip}",
        "--port=6379": f"--port={cluster.gcs}",
        "8076": str(cluster.objects[0]),
        "--dashboard-host=0.0.0.0": "--dashboard-host=127.0.0.1",
        "8265": f"{cluster.dashboard} --ray-client-server-port={cluster.client}",
    }
    return replaced(SERVICES["head"]["command"][2].strip(), changes) + _own_options(cluster, 0)


def _worker_command(cluster: Cluster) -> str:
    commands = read_ray_up(CLUSTER / "aws.yaml")["worker_start_ray_commands"]
    # `ray stop` would end every Ray of this machine.
    (command,) = with_head_node_ip([c for c in commands if c != "ray stop"], cluster.ip)
    command = replaced(command, {":6379": f":{cluster.gcs}", "8076": str(cluster.objects[1])})
    command += " --block --num-cpus=1 --num-gpus=1 --object-store-memory=200000000"
    return command + _own_options(cluster, 1)


def _own_options(cluster: Cluster, node: int) -> str:
    # A socket's path must stay below 104 characters: not in pytest's folder.
    return (
        f" --metrics-export-port={cluster.metrics[node]} --include-log-monitor=false"
        f" --dashboard-agent-listen-port={cluster.agents[node]}"
        f" --node-manager-port={cluster.raylets[node]}"
        f" --temp-dir={_ray_folder(node)}"
    )


def _ray_folder(node: int) -> Path:
    return Path(f"/tmp/unshift-files-{os.getpid()}-{node}")


def _health(service: dict, changes: dict[str, str]) -> list[str]:
    words = service["healthcheck"]["test"]
    assert words[0] == "CMD"
    return [*words[1:-1], replaced(words[-1], changes)]


def test_a_command_begins_when_all_nodes_and_gpus_are_there(cluster: Cluster) -> None:
    words = ["-m", "cluster.workers", "--nodes", "2", "--gpus", "1", "--wait-minutes", "1", "--"]
    done = subprocess.run(
        [sys.executable, *words, "echo", "--begun"],
        env=cluster.env,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "--begun\n"), done.stderr
    assert done.stderr.splitlines()[-1] == "1 GPUs on 2 nodes are there, 1 GPUs on 2 nodes wanted"


def test_a_command_begins_with_fewer_gpus_when_the_wait_is_over(cluster: Cluster) -> None:
    words = ["-m", "cluster.workers", "--gpus", "2", "--wait-minutes", "0", "--", "echo", "begun"]
    done = subprocess.run([sys.executable, *words], env=cluster.env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "begun\n"), done.stderr


def test_the_sweep_service_shows_what_the_script_prints(cluster: Cluster) -> None:
    entry = " ".join(SERVICES["sweep"]["entrypoint"])
    changes = {
        "tini -- ": "",
        "http://head:8265": f"http://127.0.0.1:{cluster.dashboard}",
        "/opt/unshift": str(CLUSTER.parent),
    }
    client = {name: value for name, value in cluster.env.items() if name != "RAY_ADDRESS"}
    words = replaced(entry, changes).split()
    done = subprocess.run([*words, "--help"], env=client, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--study-storage" in done.stdout and "succeeded" in done.stdout


def test_the_password_file_is_one_that_libpq_accepts(cluster: Cluster) -> None:
    path = Path(cluster.env["PGPASSFILE"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secrets = Path(cluster.env["RAY_AUTH_TOKEN_PATH"]).parent
    assert path.read_text() == (secrets / "pgpass").read_text()


def test_what_takes_jobs_or_tells_state_refuses_without_the_token(cluster: Cluster) -> None:
    dashboard = f"http://127.0.0.1:{cluster.dashboard}"
    for path in ("/api/jobs/", "/nodes?view=summary", "/api/cluster_status", "/logs/"):
        assert knock(dashboard + path)[0] == 401, path
    token = Path(cluster.env["RAY_AUTH_TOKEN_PATH"]).read_text()
    assert knock(f"{dashboard}/api/jobs/", Authorization=f"Bearer {token}")[0] == 200
    for agent in cluster.agents:
        assert knock(f"http://{cluster.ip}:{agent}/api/job_agent/jobs/")[0] == 401


GCS = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"


def _answer(port: int, method: str, *, token: str) -> str:
    """Return the code of gRPC with which a port answers a call that has nothing in it."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(method)(b"", metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


@pytest.mark.parametrize(
    ("port", "method"),
    [
        ("gcs", GCS),
        ("gcs", "/ray.rpc.InternalKVGcsService/InternalKVKeys"),
        ("client", "/ray.rpc.RayletDriver/ClusterInfo"),
        ("raylets", "/ray.rpc.NodeManagerService/GetNodeStats"),
        ("objects", "/ray.rpc.ObjectManagerService/Pull"),
    ],
)
def test_what_speaks_grpc_refuses_without_the_token(
    cluster: Cluster, port: str, method: str
) -> None:
    """Asked on loopback, though it was started with another address: it listens everywhere."""
    number = getattr(cluster, port)
    token = Path(cluster.env["RAY_AUTH_TOKEN_PATH"]).read_text()
    for each in number if isinstance(number, list) else [number]:
        assert _answer(each, method, token="") == "UNAUTHENTICATED"
        assert _answer(each, method, token="0" * 64) == "UNAUTHENTICATED"
        if port != "objects":  # whose raylet ends when it is asked for an object without a name
            assert _answer(each, method, token=token) not in ("UNAUTHENTICATED", "UNAVAILABLE")


def test_the_probes_of_kubernetes_are_answered_without_a_token(cluster: Cluster) -> None:
    (spec,) = [m["spec"] for _, m in read_manifests() if m["kind"] == "RayCluster"]
    (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
    (worker,) = spec["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        of_head, of_worker = head[probe]["httpGet"], worker[probe]["httpGet"]
        assert (of_head["port"], of_worker["port"]) == (8265, 52365)
        status, said = knock(f"http://127.0.0.1:{cluster.dashboard}{of_head['path']}")
        assert (status, said) == (200, "success")
        status, said = knock(f"http://{cluster.ip}:{cluster.agents[1]}{of_worker['path']}")
        assert (status, said) == (200, "success")


def test_the_metrics_ports_answer_anyone_which_is_why_they_are_fenced(cluster: Cluster) -> None:
    """With collection off, those of the nodes have nothing to tell."""
    *nodes, dashboard, autoscaler = cluster.metrics
    for port in (dashboard, autoscaler):
        status, said = knock(f"http://{cluster.ip}:{port}/metrics")
        assert status == 200 and "# HELP" in said
    for port in nodes:
        status, said = knock(f"http://{cluster.ip}:{port}/metrics")
        assert "ray_" not in said, said[:300]
