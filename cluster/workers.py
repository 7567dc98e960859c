"""`python -m cluster.workers --gpus N -- COMMAND`: a command, once a cluster is large enough.

A cluster that scales from nothing has no GPU while nothing waits, and the nodes of an allocation
join one after the other; but a sweep decides when it begins whether it trains on GPUs.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import click

from cluster import environment

POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class ClusterSize:
    """How much of a cluster is there, or is wanted."""

    gpus: int
    nodes: int
    """The head is one."""

    def __str__(self) -> str:
        return f"{self.gpus} GPUs on {self.nodes} nodes"

    def reaches(self, wanted: "ClusterSize") -> bool:
        """Whether nothing is missing of what is wanted."""
        return self.gpus >= wanted.gpus and self.nodes >= wanted.nodes


@click.command()
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
@click.option("--gpus", type=click.IntRange(min=0), default=0, help="GPUs to ask for.")
@click.option("--cpus-per-gpu", type=click.IntRange(min=1), default=1, help="CPUs beside each.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, help="Nodes, the head included.")
@click.option(
    "--wait-minutes",
    type=click.FloatRange(min=0),
    default=20.0,
    show_default=True,
    help="Begin with what is there by then.",
)
def main(
    command: tuple[str, ...], gpus: int, cpus_per_gpu: int, nodes: int, wait_minutes: float
) -> None:
    """Wait until this job's Ray cluster has all GPUs and nodes, and become COMMAND.

    GPUs are asked for, so that a cluster which scales by itself brings them. Ends with status 1
    when there should be GPUs and not one has come.
    """
    wanted = ClusterSize(gpus=gpus, nodes=nodes)
    there = wait_for(
        wanted,
        cpus_per_gpu=cpus_per_gpu,
        timeout_s=60 * wait_minutes,
        show=lambda line: click.echo(line, err=True),
    )
    if gpus and not there.gpus:
        raise click.ClickException(
            f"no GPU after {wait_minutes:g} min; `ray status` says what the autoscaler waits for"
        )
    os.execvp(command[0], command)


def wait_for(
    wanted: ClusterSize, *, cpus_per_gpu: int, timeout_s: float, show: Callable[[str], object]
) -> ClusterSize:
    """Return what is there once nothing is missing, or `timeout_s` is over.

    What was asked for is withdrawn in the end: from then on it is trials that keep workers.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        bundle = {"GPU": 1, "CPU": cpus_per_gpu}
        request_resources(bundles=[bundle] * wanted.gpus)
        return _poll(wanted, deadline_s=time.monotonic() + timeout_s, show=show)
    finally:
        request_resources(bundles=[])
        ray.shutdown()


def _poll(wanted: ClusterSize, *, deadline_s: float, show: Callable[[str], object]) -> ClusterSize:
    before = None
    while True:
        there = _measure()
        if there != before:
            show(f"{there} are there, {wanted} wanted")
            before = there
        if there.reaches(wanted) or time.monotonic() >= deadline_s:
            return there
        time.sleep(POLL_S)


def _measure() -> ClusterSize:
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    return ClusterSize(gpus=math.floor(resources.get("GPU", 0)), nodes=nodes)


if __name__ == "__main__":
    environment.apply()
    main()
