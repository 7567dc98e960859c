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
@click.option("--gain", type=click.FloatRange(-60, 20), default=0.0, help="Louder by so many dB.")
@force_option
@device_option
@places_options
def restore(
    source: Path,
    target: Path,
    trial: str,
    shift: float | None,
    gain: float,
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
    from trainer.restore import Process, Restoration, plan_jobs, with_gain

    jobs = plan_jobs(source, target, force=force)
    trained = find_trained(trial, Places(**places))
    place = resolve_device(device)
    restoration = Restoration(net=trained.load(place), device=place)
    config = trained.record.config
    click.echo(f"{config.model.family} net of trial {trained.record.fingerprint}", err=True)
    process: Process = restoration
    if shift is not None:
        process = restoration.after_shift(shift)
        limit = max(abs(n) for n in config.damage.shifts)
        if abs(shift) > limit:
            warning = f"this net was trained on shifts up to {limit} semitones"
            click.echo(f"WARNING: {warning}", err=True)
    process_all(jobs, with_gain(process, gain))
