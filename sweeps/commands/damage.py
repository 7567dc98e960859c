"""`unshift damage`."""

from pathlib import Path

import click

from sweeps.commands.options import force_option
from sweeps.commands.processing import process_all


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--shift", type=int, required=True, help="Semitones up, or down if below 0.")
@click.option("--gain", type=click.FloatRange(-60, 20), default=0.0, help="Louder by so many dB.")
@force_option
def damage(source: Path, target: Path, shift: int, gain: float, force: bool) -> None:
    """Shift the recording or folder IN by some semitones and back, and write OUT.

    What training does to its clips, for trying out what restoring them is worth.
    """
    from trainer.restore import damage as damage_by
    from trainer.restore import plan_jobs, with_gain

    process = with_gain(damage_by(shift), gain)
    process_all(plan_jobs(source, target, force=force), process)
