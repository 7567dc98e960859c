"""Hosts in miniature: network namespaces of Linux on one bridge, each with an address of its own.

This process is on that network too, as somebody outside the cluster.
"""

import os
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

import pytest

# A network for each process, of the range for trials of networks (RFC 2544): nobody's.
_PREFIX = f"198.18.{os.getpid() % 256}"
_BITS = 24


@dataclass(frozen=True)
class Host:
    """A machine's place on the network."""

    name: str
    ip: str
    namespace: str
    cable: str
    """The end of its cable at the bridge."""

    @property
    def inside(self) -> tuple[str, ...]:
        """Return the words before a command that runs there."""
        return (_find("ip"), "netns", "exec", self.namespace)

    def cut(self) -> None:
        """Pull the cable: what is sent is lost, and nobody is told."""
        _run("link", "set", self.cable, "down")

    def mend(self) -> None:
        """Put it back."""
        _run("link", "set", self.cable, "up")


class Network:
    """A bridge that lives as long as its `with` block, with the hosts that were added to it.

    Skips the test where it may not be made.
    """

    def __init__(self) -> None:
        self.name = f"un{os.getpid() % 10_000}"
        self._hosts: list[Host] = []
        self._stack = ExitStack()
        self.ip = f"{_PREFIX}.1"
        """This process's own address."""

    def __enter__(self) -> Self:
        if shutil.which("ip", path=_PATH) is None or os.geteuid() != 0:
            pytest.skip("network namespaces need Linux's iproute2, and root")
        try:
            _run("link", "add", self.name, "type", "bridge")
        except PermissionError as error:
            pytest.skip(f"network namespaces are not allowed here: {error}")
        self._stack.callback(_run, "link", "delete", self.name)
        _run("address", "add", f"{self.ip}/{_BITS}", "dev", self.name)
        _run("link", "set", self.name, "up")
        _run("link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, name: str) -> Host:
        """Return a new host."""
        number = len(self._hosts) + 2
        host = Host(name, f"{_PREFIX}.{number}", f"{self.name}-{name}", f"{self.name}-{number}")
        _run("netns", "add", host.namespace)
        self._stack.callback(_run, "netns", "delete", host.namespace)
        peer = ("peer", "name", "eth0", "netns", host.namespace)
        _run("link", "add", host.cable, "type", "veth", *peer)
        _run("link", "set", host.cable, "master", self.name, "up")
        within = ("-netns", host.namespace)
        _run(*within, "address", "add", f"{host.ip}/{_BITS}", "dev", "eth0")
        for device in ("eth0", "lo"):
            _run(*within, "link", "set", device, "up")
        self._hosts.append(host)
        return host


_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _find(program: str) -> str:
    found = shutil.which(program, path=_PATH)
    assert found is not None, program
    return found


def _run(*words: str) -> None:
    """Run `ip`. Raises PermissionError where that is not allowed."""
    done = subprocess.run([_find("ip"), *words], capture_output=True, text=True)
    if "not permitted" in done.stderr:
        raise PermissionError(done.stderr.strip())
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
