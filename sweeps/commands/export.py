"""`unshift export`."""

from pathlib import Path
from typing import Any

import click

from sweeps.commands.options import force_option, places_options
from sweeps.engine.places import Places, resolve_path


@click.command()
@click.option(
    "--trial",
    required=True,
    metavar="TRIAL|best:SWEEP|DIR",
    help="Whose net: a trial, a sweep's best, or what export wrote.",
)
@click.option("--out", required=True, metavar="DIR", help="A folder that is new or empty.")
@force_option
@places_options
def export(trial: str, out: str, force: bool, **places: Any) -> None:
    """Write a trained net into a folder: its record, safetensors weights and ONNX.

    The folder serves as --trial of other commands. The net is the storage root's, or MLflow's with
    --tracking-uri.
    """
    folder = resolve_path("out", out, relative_to=Path.cwd())
    from sweeps.engine.recorded import find_trained
    from trainer.export import ONNX
    from trainer.export import export as write

    trained = find_trained(trial, Places(**places))
    written = write(trained, folder, force=force)
    click.echo(f"trial {trained.record.fingerprint} in {folder}")
    for file in written.files:
        is_onnx = file.name == ONNX
        note = f"  at most {written.difference:.1e} from PyTorch" if is_onnx else ""
        click.echo(f"  {file.name:<16}  {_size(file):>9}{note}")
    if written.difference is None:
        click.echo(f"no {ONNX}: {written.why_no_onnx}", err=True)


def _size(file: Path) -> str:
    kilobytes = file.stat().st_size / 1e3
    return f"{kilobytes:.1f} kB" if kilobytes < 1e3 else f"{kilobytes / 1e3:.1f} MB"
