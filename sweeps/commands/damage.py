"""`unshift damage`."""

from pathlib import Path

import click

from sweeps.commands.options import force_option
from sweeps.commands.processing import process_all


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--shift", type=int, required=True, help="Semitones up, or down if below 0.")
@force_option
def damage(source: Path, target: Path, shift: int, force: bool) -> None:
    """Shift the recording or folder IN by some semitones and back, and write OUT.

    What training does to its clips, for trying out what restoring them is worth.
    """
    from trainer.restore import damage as damage_by
    from trainer.restore import plan_jobs

    process = damage_by(shift)
    process_all(plan_jobs(source, target, force=force), process)
