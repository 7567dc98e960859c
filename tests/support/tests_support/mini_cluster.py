"""A cluster in miniature: Ray's head and workers on hosts of their own, by compose.yaml's commands.

PostgreSQL, MLflow and the object store run on the head. Ray speaks TLS among its nodes. GPUs are
those that Ray is told of.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tests_support.cluster_files import CERTIFICATES
from tests_support.local_nodes import Node, knock, replaced, variables
from tests_support.network import Host, Network
from tests_support.stores import SERVICES, Stores, give_home, serve_stores

HEAD = "head"
_RAY = SERVICES["head"]["environment"]


@dataclass
class Machine:
    """A host and Ray on it."""

    host: Host
    env: dict[str, str]
    command: str
    folder: Path
    health: str
    _stack: ExitStack = field(default_factory=ExitStack)
    _node: Node | None = None
    _starts: int = 0

    def start(self) -> None:
        """Start Ray, and return at once."""
        self._starts += 1
        log = self.folder / f"{self.host.name}-{self._starts}.log"
        node = Node(self.command, env=self.env, log=log, inside=self.host.inside)
        self._node = self._stack.enter_context(node)

    def wait_until_up(self) -> None:
        """Return once its node is healthy."""
        assert self._node is not None
        self._node.wait_until(lambda: knock(self.health)[0] == 200)

    def lose_power(self) -> None:
        """End all of it without a word to anybody."""
        assert self._node is not None
        self.cut()
        self._node.kill()

    def take_back(self) -> None:
        """Ask all that run there to end, as a system does that shuts down."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()

    def cut(self) -> None:
        """Cut it off from the network."""
        self.host.cut(self.processes())

    def mend(self) -> None:
        """Take that back."""
        self.host.mend(self.processes())

    def processes(self) -> list[psutil.Process]:
        """Return all that run there of Ray."""
        assert self._node is not None
        return self._node.processes()

    def has_ended(self) -> bool:
        """Whether Ray has ended by itself."""
        assert self._node is not None
        return self._node.has_ended()

    def end(self) -> None:
        """Take it down."""
        self._stack.close()


@dataclass
class MiniCluster:
    """The machines that run, the stores on the head, and what somebody outside needs."""

    network: Network
    stores: Stores
    folder: Path
    machines: dict[str, Machine] = field(default_factory=dict)

    @property
    def head(self) -> Host:
        """Return the head's host."""
        return self.machines[HEAD].host

    @property
    def dashboard_url(self) -> str:
        """Return where jobs are submitted."""
        return f"http://{self.head.ip}:{self.head.port(8265)}"

    @property
    def client_environment(self) -> dict[str, str]:
        """Return the variables of somebody outside who has Ray's token, and no more."""
        return {
            "RAY_API_SERVER_ADDRESS": self.dashboard_url,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.stores.secrets / "ray_token"),
        }

    def add_worker(self, name: str, *, cpus: int, gpus: int) -> Machine:
        """Start a machine that joins the cluster, and return at once."""
        words = " ".join(SERVICES["worker"]["command"])
        changes = {
            "--num-cpus=2": f"--num-cpus={cpus}",
            "--num-gpus=0": f"--num-gpus={gpus}",
            "--address=head:6379": f"--address={self.head.ip}:{self.head.port(6379)}",
        }
        return self._start(self.network.add(name), replaced(words, changes))

    def add_head(self, host: Host) -> Machine:
        """Start the head, and return at once."""
        script = SERVICES["head"]["command"][2].strip()
        changes = {
            "/run/secrets": str(self.stores.secrets),
            "'*:5432:": "'*:*:",
            "getent ahostsv4 head-inside": f"getent ahostsv4 {host.ip}",
            "--dashboard-host=0.0.0.0": f"--dashboard-host={host.ip}",
            "--port=6379": f"--port={host.port(6379)}",
            "--dashboard-port=8265": f"--dashboard-port={host.port(8265)}"
            f" --ray-client-server-port={host.port(10001)}",
        }
        return self._start(host, replaced(script, changes))

    def _start(self, host: Host, command: str) -> Machine:
        seen, own = self._ray_folders(host)
        for folder in (seen, own):
            folder.mkdir(exist_ok=True)
        mount = ""
        if self.network.has_namespaces:  # `ip netns exec` gives a command mounts of its own
            mount = f"mount --bind {own} {seen}\n"
        else:
            seen = own
        agent = host.port(52365)
        self.machines[host.name] = machine = Machine(
            host=host,
            env=self._environment(host),
            command=mount
            + replaced(command, {"-port=8076": f"-port={host.port(8076)}"})
            + f" --node-ip-address={host.ip} --temp-dir={seen} --include-log-monitor=false"
            + f" --dashboard-agent-listen-port={agent}",
            folder=self.folder,
            health=f"http://{host.ip}:{agent}/api/local_raylet_healthz",
        )
        machine.start()
        return machine

    def _environment(self, host: Host) -> dict[str, str]:
        home = self.folder / host.name
        give_home(home, self.stores.secrets)
        secrets = str(self.stores.secrets)
        given = {
            name: value.replace("/run/secrets", secrets).replace("/home/unshift", str(home))
            for name, value in _RAY.items()
        }
        given["AWS_ENDPOINT_URL"] = self.stores.objects
        given["DASHBOARD_METRIC_PORT"] = str(host.port(44227))
        given["AUTOSCALER_METRIC_PORT"] = str(host.port(44217))
        return variables(**given, HOME=str(home), OMP_NUM_THREADS="1", **self._tls(host))

    def _tls(self, host: Host) -> dict[str, str]:
        make = ["sh", str(CERTIFICATES), host.ip]
        own = os.environ | {"UNSHIFT_SECRETS": str(self.stores.secrets)}
        subprocess.run(make, env=own, check=True, stdout=subprocess.DEVNULL)
        folder = self.stores.secrets / "tls"
        return {
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": str(folder / f"{host.ip}.crt"),
            "RAY_TLS_SERVER_KEY": str(folder / f"{host.ip}.key"),
            "RAY_TLS_CA_CERT": str(folder / "authority.crt"),
        }

    def _ray_folders(self, host: Host) -> tuple[Path, Path]:
        """Return Ray's folder as all machines see it, by the same name, and a host's own one.

        A socket's path must stay below 104 characters: not in pytest's folder.
        """
        return Path(f"/tmp/{self.network.name}"), Path(f"/tmp/{self.network.name}-{host.name}")

    def end(self) -> None:
        """Take all machines down, the head last."""
        for machine in reversed(self.machines.values()):
            machine.end()
            for folder in self._ray_folders(machine.host):
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def run_cluster(folder: Path) -> Iterator[MiniCluster]:
    """Run a head with its stores, without a worker yet."""
    with Network() as network:
        host = network.add(HEAD)
        with serve_stores(folder, ip=host.ip, inside=host.inside) as stores:
            cluster = MiniCluster(network, stores, folder)
            try:
                cluster.add_head(host).wait_until_up()
                yield cluster
            finally:
                cluster.end()
