"""Hosts in miniature, each with an address of its own.

They are network namespaces of Linux on one bridge, on which this process is too, as somebody
outside the cluster. Where namespaces are not allowed they are addresses of the loopback device:
then hosts share their ports, and one that is cut off is one that stands still.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Self

import psutil

from cluster.free_ports import free_ports

# A network for each process, of the range for trials of networks (RFC 2544): nobody's.
_PREFIX = f"198.18.{os.getpid() % 256}"
_BITS = 24


@dataclass(frozen=True)
class Host:
    """A machine's place on the loopback device."""

    name: str
    ip: str
    _ports: dict[int, int] = field(default_factory=dict)

    @property
    def inside(self) -> tuple[str, ...]:
        """Return the words before a command that runs there."""
        return ()

    def port(self, usual: int) -> int:
        """Return the port that stands there for a usual one."""
        if usual not in self._ports:
            (self._ports[usual],) = free_ports(1)
        return self._ports[usual]

    def cut(self, processes: Iterable[psutil.Process]) -> None:
        """Cut it off from the others: nobody is told. `processes` are all that run there."""
        _signal(processes, signal.SIGSTOP)

    def mend(self, processes: Iterable[psutil.Process]) -> None:
        """Take that back."""
        _signal(processes, signal.SIGCONT)


@dataclass(frozen=True)
class Namespace(Host):
    """A machine's place on a network: all ports are its own."""

    namespace: str = ""
    cable: str = ""
    """The end of its cable at the bridge."""

    @property
    def inside(self) -> tuple[str, ...]:
        """Return the words before a command that runs there."""
        return (_find("ip"), "netns", "exec", self.namespace)

    def port(self, usual: int) -> int:
        """Return the port itself."""
        return usual

    def cut(self, processes: Iterable[psutil.Process]) -> None:
        """Pull the cable: what is sent is lost."""
        _run("link", "set", self.cable, "down")

    def mend(self, processes: Iterable[psutil.Process]) -> None:
        """Put it back."""
        _run("link", "set", self.cable, "up")


class Network:
    """A network that lives as long as its `with` block, with the hosts that were added to it."""

    def __init__(self) -> None:
        self.name = f"un{os.getpid() % 10_000}"
        self.has_namespaces = False
        self._count = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with suppress(PermissionError):
            _run("link", "add", self.name, "type", "bridge")
            self._stack.callback(_run, "link", "delete", self.name)
            _run("address", "add", f"{_PREFIX}.1/{_BITS}", "dev", self.name)
            _run("link", "set", self.name, "up")
            self.has_namespaces = True
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, name: str) -> Host:
        """Return a new host."""
        self._count += 1
        number = self._count + 1
        if not self.has_namespaces:
            return Host(name, f"127.0.0.{number}")
        host = Namespace(
            name,
            f"{_PREFIX}.{number}",
            namespace=f"{self.name}-{name}",
            cable=f"{self.name}-{number}",
        )
        _run("netns", "add", host.namespace)
        self._stack.callback(_run, "netns", "delete", host.namespace)
        peer = ("peer", "name", "eth0", "netns", host.namespace)
        _run("link", "add", host.cable, "type", "veth", *peer)
        _run("link", "set", host.cable, "master", self.name, "up")
        within = ("-netns", host.namespace)
        _run(*within, "address", "add", f"{host.ip}/{_BITS}", "dev", "eth0")
        for device in ("eth0", "lo"):
            _run(*within, "link", "set", device, "up")
        return host


_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _find(program: str) -> str:
    return shutil.which(program, path=_PATH) or program


def _run(*words: str) -> None:
    """Run `ip`. Raises PermissionError where that is not allowed, or there is none."""
    try:
        done = subprocess.run([_find("ip"), *words], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PermissionError("iproute2 is not installed") from error
    if "not permitted" in done.stderr:
        raise PermissionError(done.stderr.strip())
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
