"""Every port on which a head listens: who may reach it, and what it answers without the token."""

import os
import subprocess
import sys

import grpc
import psutil
import pytest
from tests_support.knocking import all_methods, kind_of
from tests_support.listening import addresses_of
from tests_support.titles import title_of
from tests_support.waiting import wait_until

pytestmark = pytest.mark.slow

# By process and by what a port says without a token: "grpc" (each method that is known there
# refuses), "http" (whatever is asked refuses), "dashboard" (static pages, the rest refuses),
# "metrics" (figures to read, nothing else).
EXPECTED = {
    "gcs_server": ["grpc"],
    "client server": ["grpc", "grpc"],
    "dashboard": ["dashboard", "metrics"],
    "raylet": ["grpc", "grpc"],
    "ray::DashboardAgent": ["grpc", "http", "http", "metrics"],
    "ray::RuntimeEnvAgent": ["http"],
    "worker": ["grpc"],
    "driver": ["grpc"],
}
"""All ports of a head; docs/security.md explains them."""

AFTER_A_JOB = EXPECTED | {"ray::DashboardAgent": ["grpc", "grpc", "http", "http", "metrics"]}
"""The agent joins the cluster itself to run a job, as other tests of this head have had it do."""

DRIVER = """
import ray
ray.init(logging_level="ERROR")

@ray.remote
class Actor:
    def answer(self):
        return 1

actor = Actor.remote()
print(ray.get(actor.answer.remote()), flush=True)
input()
"""


def role_of(process, driver):
    line = title_of(process)
    if process.pid == driver:
        return "driver"
    if "ray.util.client.server" in line:
        return "client server"
    if "dashboard/dashboard.py" in line:
        return "dashboard"
    named = process.name() if process.name() in EXPECTED else line
    return "worker" if named.startswith(("ray::IDLE", "ray::Actor")) else named


@pytest.fixture(scope="module")
def ports(local_head):
    """Return (role, process, address) of every port on which the head and a driver listen."""
    variables = os.environ | local_head.client_environment
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", DRIVER], env=variables, **pipes) as driver:
        assert driver.stdout.readline() == "1\n"
        root = psutil.Process(local_head._process.pid)

        def find():
            family = [root, *root.children(recursive=True), psutil.Process(driver.pid)]
            found = [
                (role_of(process, driver.pid), process.pid, address)
                for process in family
                for address in addresses_of(process)
            ]
            return found if EXPECTED.keys() <= {role for role, *_ in found} else None

        # A head takes jobs and drivers while its client server, by itself, is still starting.
        yield wait_until(find, seconds=240)
        driver.communicate("\n")


def test_every_port_is_known_and_refuses_without_the_token(ports):
    methods = all_methods()
    assert len(methods) > 100
    found = {}
    for role, pid, address in ports:
        host = {"::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(address.ip, address.ip)
        kind = kind_of(host.removeprefix("::ffff:"), address.port, methods)
        found.setdefault((role, pid), []).append(kind)
    assert {role for role, _ in found} == EXPECTED.keys()
    for (role, _), kinds in found.items():
        assert sorted(kinds) in (EXPECTED[role], AFTER_A_JOB[role]), role


def test_the_dashboard_listens_on_loopback_alone(ports, local_head):
    port = int(local_head.dashboard_url.rpartition(":")[2])
    assert [a.ip for role, _, a in ports if a.port == port] == ["127.0.0.1"]


def test_the_same_calls_are_answered_with_the_token(local_head):
    """That the refusals above are for want of a token."""
    method = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
    address = local_head.client_environment["RAY_ADDRESS"]
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(method)
        assert call(b"", timeout=60, metadata=[("authorization", f"Bearer {local_head._token}")])
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            call(b"", timeout=60, metadata=[("authorization", "Bearer " + "0" * 64)])
