"""What commands that turn recordings into recordings share: the jobs, a bar, and how they end."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainer.command_line import WRONG_INPUT

if TYPE_CHECKING:
    from trainer.restore import Job, Process


def process_all(jobs: "list[Job]", process: "Process") -> None:
    """Do all jobs, with a bar in seconds of audio, and say what became of each recording.

    One that cannot be done is named and the others are done all the same; the exit status is 2
    then.
    """
    from tqdm import tqdm

    from trainer.restore import process_file, total_seconds

    failed = 0
    total = total_seconds(jobs)
    layout = "{percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}]"
    with tqdm(total=total, bar_format=layout, file=sys.stderr) as bar:
        for job in jobs:
            bar.set_description(job.source.name)
            try:
                done = process_file(job, process, on_progress=bar.update)
            except ValueError as error:
                if len(jobs) == 1:
                    raise
                failed += 1
                bar.write(f"ERROR: {error}", file=sys.stderr)
                continue
            bar.write(_tell(job.target, done.seconds, done.notes), file=sys.stdout)
    if failed:
        click.echo(f"{failed} of {len(jobs)} recordings could not be processed", err=True)
        sys.exit(WRONG_INPUT)


def _tell(target: Path, seconds: float, notes: tuple[str, ...]) -> str:
    text = f"{target}: {seconds:.1f} s"
    return text + "".join(f"; {note}" for note in notes)
