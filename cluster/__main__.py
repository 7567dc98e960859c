"""`python -m cluster SCRIPT [ARGS]`: a local Ray head for the length of one job."""

import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import click

from cluster import environment
from cluster.credentials import refuse_secret, refuse_secrets
from cluster.job import INTERRUPTED, submit
from cluster.local import LocalHead
from cluster.ray_cli import ClusterFailed

ONE_SIGNAL_S = 1.0
WRONG_INPUT = 2


@click.command()
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--num-cpus", type=click.IntRange(min=1), help="CPUs of the head (all of them).")
@click.option("--resume-hint", default="", help="Said when the job was interrupted.")
def main(script: str, arguments: tuple[str, ...], num_cpus: int | None, resume_hint: str) -> int:
    """Run SCRIPT with ARGUMENTS as a job of a Ray head on this machine, and end both.

    The current folder is what the job gets a copy of. Arguments that look like options stand after
    a `--`. Ends with the script's own exit status, 130 when interrupted.
    """
    working_dir = Path.cwd()
    if not Path(script).resolve().is_relative_to(working_dir.resolve()):
        raise click.UsageError(f"SCRIPT {script} must lie in the current folder {working_dir}")
    click.echo("Starting a local Ray head (about 10 s) ...", err=True)
    try:
        with LocalHead(num_cpus=num_cpus) as head:
            status = submit(head, script, arguments, working_dir=working_dir, write=_write)
    except ClusterFailed as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        status = INTERRUPTED
    if status == INTERRUPTED and resume_hint:
        click.echo(resume_hint, err=True)
    return status


def _write(line: str) -> None:
    click.echo(line, nl=False)


def _run() -> int:
    environment.apply()
    logging.basicConfig(format="%(message)s")
    interrupted_s = float("-inf")

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted_s
        now_s = time.monotonic()
        # What comes again at once is the same signal, a process group's and its parent's.
        if now_s - interrupted_s > ONE_SIGNAL_S:
            interrupted_s = now_s
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)  # all of them end a job in good order
    try:
        refuse_secrets(sys.argv[1:])
        refuse_secret("UNSHIFT_HOME", os.environ.get("UNSHIFT_HOME", ""))
        return int(main(standalone_mode=False))
    except ValueError as error:
        click.echo(f"Error: {error}", err=True)
        return WRONG_INPUT
    except click.ClickException as error:
        click.echo(f"Error: {error.format_message()}", err=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(_run())
