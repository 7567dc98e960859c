"""Every port of a cluster in miniature, tried from another namespace without a credential."""

import json
import os
import subprocess
import sys

import pytest
from tests_support.cluster_files import ROOT
from tests_support.local_nodes import variables
from tests_support.mini_cluster import run_cluster
from tests_support.titles import title_of
from tests_support.waiting import wait_until

from cluster.dashboard import Dashboard
from cluster.job import queue

pytestmark = pytest.mark.slow

LOOPBACK = ("127.", "::1", "::ffff:127.")

# By what the process is: what its ports are to a stranger (tests_support/knocking.py). "TLS":
# nobody gets as far as a call without a certificate of the cluster's authority.
EXPECTED = {
    "gcs_server": {"TLS"},
    "client server": {"TLS"},
    "dashboard": {"dashboard", "metrics"},
    "autoscaler": {"metrics"},
    "raylet": {"TLS"},
    "agent": {"TLS", "http"},
    "runtime env agent": {"http"},
    "worker": {"TLS"},
    "driver": {"TLS"},
}
"""docs/cluster.md explains what answers."""

DRIVER = """
import time
import ray
ray.init(logging_level="ERROR")

@ray.remote(num_cpus=1)
class Actor:
    def answer(self):
        return 1

actor = Actor.remote()
print("answers", ray.get(actor.answer.remote()), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head with its stores and a worker, a job on the one that has an actor on the other."""
    with run_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        if not cluster.network.has_namespaces:
            pytest.skip("network namespaces need Linux's iproute2, and root")
        cluster.add_worker("one", cpus=1, gpus=0).wait_until_up()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in cluster.client_environment.items():
                patch.setenv(name, value)
            dashboard = Dashboard.at(None)
            queue(dashboard, "knocked-0123abcd", ["python", "-c", DRIVER])
            log = "/api/jobs/knocked-0123abcd/logs"
            wait_until(lambda: "answers 1" in str(dashboard.request(log)), seconds=240)
        yield cluster


@pytest.fixture(scope="module")
def from_outside(cluster):
    """Return a function that runs Python on a host of the network that is none of the cluster."""
    stranger = cluster.network.add("stranger")
    return lambda *words, said="": run_on(stranger, *words, said=said)


def run_on(host, *words, said=""):
    """Run Python on a host; return the JSON that it prints."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    done = subprocess.run(
        [*host.inside, sys.executable, *words],
        input=said,
        env=variables(PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def role_of(process):
    line = title_of(process)
    roles = {
        "gcs_server": "gcs_server",
        "ray.util.client.server": "client server",
        "dashboard/dashboard.py": "dashboard",
        "monitor.py": "autoscaler",
        "ray::DashboardAgent": "agent",
        "ray::RuntimeEnvAgent": "runtime env agent",
        "raylet/raylet": "raylet",
        "import time": "driver",
        "ray::": "worker",
    }
    return next((role for part, role in roles.items() if part in line), line)


LISTENING = """
import json
import psutil

there = [c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN]
print(json.dumps([(c.pid, *c.laddr) for c in there]))
"""


def doors(machine):
    """Return (process, port, whether for loopback alone) of all that Ray listens on there."""
    processes = {process.pid: process for process in machine.processes()}
    listening = [door for door in run_on(machine.host, "-c", LISTENING) if door[0] in processes]
    wide = {port for _, ip, port in listening if not ip.startswith(LOOPBACK)}
    return {(processes[pid], port, port not in wide) for pid, _, port in listening}


def test_every_port_is_known_and_nothing_runs_or_is_read_without_a_credential(
    cluster, from_outside
):
    machines = cluster.machines.values()
    there = [(machine.host.ip, *door) for machine in machines for door in doors(machine)]
    knocked = [(ip, port) for ip, _, port, _ in there]
    kinds = from_outside("-m", "tests_support.knocking", said=json.dumps(knocked))
    found = {}
    for (_, process, _, is_loopback), kind in zip(there, kinds, strict=True):
        assert (kind == "closed") == is_loopback
        if not is_loopback:
            found.setdefault(role_of(process), set()).add(kind)
    assert found == EXPECTED


STORES = """
import json, sys, urllib.error, urllib.request
import psycopg

def status(url, method="GET"):
    try:
        return urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code

def database(url, **more):
    try:
        psycopg.connect(url, connect_timeout=10, **more).close()
        return "open"
    except psycopg.OperationalError as error:
        return str(error)

objects, mlflow, study = sys.argv[1:]
search = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
found = [status(f"{objects}/unshift"), status(f"{objects}/unshift/x", "PUT"), status(search)]
print(json.dumps([*found, database(study), database(study, password="wrong")]))
"""


def test_the_stores_refuse_without_a_password_or_a_key(cluster, from_outside):
    stores = cluster.stores
    found = from_outside("-c", STORES, stores.objects, stores.mlflow, stores.study_url)
    assert found[:3] == [403, 403, 401]
    assert "no password supplied" in found[3]
    assert "password authentication failed" in found[4]


def test_the_same_doors_open_with_the_credentials(cluster):
    """That the refusals above are for want of them."""
    token = (cluster.stores.secrets / "ray_token").read_text()
    dashboard = Dashboard(cluster.dashboard_url, headers={"Authorization": f"Bearer {token}"})
    assert dashboard.ask("/api/jobs/knocked-0123abcd")["status"] == "RUNNING"
