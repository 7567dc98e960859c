"""`unshift submit`."""

import shlex
import sys
import time
from pathlib import Path

import click

from sweeps.commands.jobs import follow_job, told_in_one_line
from sweeps.commands.options import address_option

WRONG_INPUT = 2


@click.command()
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@address_option
@click.option(
    "--gpus", type=click.IntRange(min=0), default=0, help="Begin once so many GPUs have come."
)
@click.option("--detach", is_flag=True, help="Do not follow the job.")
def submit(
    script: Path, arguments: tuple[str, ...], address: str | None, gpus: int, detach: bool
) -> None:
    """Queue a sweep on a Ray cluster: SCRIPT with ARGUMENTS, which stand after a `--`.

    The current folder goes along, as git's and Ray's ignore rules let it, without recordings. What
    would go wrong is said first, a line each, and nothing is queued then. Then the job is followed;
    Ctrl-C leaves it alone.
    """
    from cluster.dashboard import Dashboard
    from sweeps.engine.submission import Submission, check_cluster, check_here, check_nodes

    folder = Path.cwd()
    if not script.absolute().is_relative_to(folder):
        raise ValueError(f"SCRIPT={script}; must lie in the current folder, which goes along")
    submission = Submission(
        script=script.absolute().relative_to(folder),
        arguments=arguments,
        folder=folder,
        gpus=gpus,
        again_command=_again(script, arguments, address=address, gpus=gpus),
    )
    with told_in_one_line():
        began_s = time.monotonic()
        _end_on(check_here(submission, note=_note))
        dashboard = Dashboard.at(address)
        _end_on(check_cluster(submission, dashboard))
        _end_on(check_nodes(submission, dashboard))
        _note(f"checked in {time.monotonic() - began_s:.1f} s")
        job = submission.queue(dashboard)
        _note(f"queued: {job}")
    if not detach:
        sys.exit(follow_job(dashboard, job))


def _end_on(faults: list[str]) -> None:
    for fault in faults:
        click.echo(f"Error: {fault}", err=True)
    if faults:
        sys.exit(WRONG_INPUT)


def _note(line: str) -> None:
    click.echo(line, err=True)


def _again(script: Path, arguments: tuple[str, ...], *, address: str | None, gpus: int) -> str:
    """Return the command that goes on; of an option given twice the last counts."""
    given = [*(["--address", address] if address else []), *(["--gpus", str(gpus)] if gpus else [])]
    command = shlex.join(["unshift", "submit", *given, str(script), "--", *arguments])
    return f"{command} --trials {{trials}}"
