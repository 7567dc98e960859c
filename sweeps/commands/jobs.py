"""What commands that have to do with a cluster's jobs share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from trainer.command_line import INTERRUPTED

if TYPE_CHECKING:
    from cluster.dashboard import Dashboard


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Let what a cluster refuses end a command as wrong input does."""
    from cluster.ray_cli import ClusterFailed

    try:
        yield
    except ClusterFailed as error:
        raise ValueError(str(error)) from error


def follow_job(dashboard: "Dashboard", job: str) -> int:
    """Print what a job prints until it ends, and return its status; Ctrl-C leaves the job alone."""
    from cluster.remote import watch

    try:
        return watch(dashboard, job, write=_write)
    except KeyboardInterrupt:
        click.echo(
            f"\n{job} goes on; unshift attach {job} follows it again, "
            f"unshift stop {job} ends it in good order",
            err=True,
        )
        return INTERRUPTED


def _write(text: str) -> None:
    click.echo(text, nl=False)
