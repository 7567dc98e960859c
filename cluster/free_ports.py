"""Ports for servers that are about to be started: from the choice to its use it takes seconds."""

import itertools
import os
import socket
from pathlib import Path

_PORTS = range(20_000, 32_768)
"""Above those that Ray gives to its workers, below those that systems give to who asks for any."""
_USUAL_EPHEMERAL = range(49_152, 65_536)
"""IANA's, which macOS and Windows keep to."""
_LINUX_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")

# Each process goes through them from a place of its own: who begins together does not meet. A
# prime: with 64 there are 399 places in all, at which processes of any numbers meet more often.
_turns = itertools.count(61 * os.getpid())


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, none of which this process got before."""
    ephemeral = _ephemeral()
    allowed = [port for port in _PORTS if port not in ephemeral] or _PORTS
    candidates = (allowed[turn % len(allowed)] for turn in _turns)
    return list(itertools.islice(filter(_is_free, candidates), count))


def _ephemeral() -> range:
    """Return the ports that the system gives to who asks for any."""
    try:
        low, high = map(int, _LINUX_EPHEMERAL.read_text().split())
    except OSError:
        return _USUAL_EPHEMERAL
    return range(low, high + 1)


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("", port))
        except OSError:
            return False
    return True
