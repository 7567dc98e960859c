"""Ports that are still free when a server, seconds later, comes to listen on them."""

import itertools
import socket
from pathlib import Path

import pytest

from cluster import free_ports as module
from cluster.free_ports import free_ports


def test_no_port_is_given_twice() -> None:
    ports = free_ports(40) + free_ports(40)
    assert len(set(ports)) == 80


def test_a_port_that_somebody_has_bound_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = next(module._turns)
    monkeypatch.setattr(module, "_turns", itertools.count(turn))
    (port,) = free_ports(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        monkeypatch.setattr(module, "_turns", itertools.count(turn))
        assert port not in free_ports(10)


@pytest.mark.parametrize("told", ["20100\t60999\n", "10000\t32667\n"])
def test_no_port_is_one_that_the_system_gives_to_who_asks_for_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setattr(module, "_LINUX_EPHEMERAL", tmp_path / "range")
    (tmp_path / "range").write_text(told)
    low, high = map(int, told.split())
    assert not [port for port in free_ports(90) if low <= port <= high]
