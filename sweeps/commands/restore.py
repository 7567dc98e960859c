"""`unshift restore`."""

from pathlib import Path
from typing import Any

import click

from sweeps.commands.options import device_option, force_option, places_options
from sweeps.commands.processing import process_all
from sweeps.engine.places import Places


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--trial",
    required=True,
    metavar="TRIAL|best:SWEEP|DIR",
    help="Whose net: a trial, a sweep's best, or what export wrote.",
)
@click.option("--shift", type=float, help="Shift the pitch by so many semitones first.")
@force_option
@device_option
@places_options
def restore(
    source: Path,
    target: Path,
    trial: str,
    shift: float | None,
    force: bool,
    device: str,
    **places: Any,
) -> None:
    """Undo pitch shifting in the recording or folder IN, and write OUT.

    OUT has IN's length, rate and channels; its format is that of its name's ending. With --shift,
    IN's pitch is shifted by so many semitones, and the result restored.
    """
    from sweeps.engine.recorded import find_trained
    from trainer.device import resolve_device
    from trainer.restore import Restoration, plan_jobs

    jobs = plan_jobs(source, target, force=force)
    trained = find_trained(trial, Places(**places))
    place = resolve_device(device)
    restoration = Restoration(net=trained.load(place), device=place)
    config = trained.record.config
    click.echo(f"{config.model.family} net of trial {trained.record.fingerprint}", err=True)
    if shift is None:
        process_all(jobs, restoration)
        return
    trained_up_to = max(abs(n) for n in config.damage.shifts)
    process = restoration.after_shift(shift)
    if abs(shift) > trained_up_to:
        limit = f"{trained_up_to} semitones"
        click.echo(f"WARNING: this net was trained on shifts up to {limit}", err=True)
    process_all(jobs, process)
