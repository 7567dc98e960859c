"""`unshift rerun`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.commit import commit_of
from sweeps.commands.options import device_option, json_option, places_options
from sweeps.engine.places import Places, resolve_path

if TYPE_CHECKING:
    from sweeps.engine.rerun import Comparison
    from trainer.config import TrainConfig
    from trainer.journal import Row
    from trainer.record import Record

EXIT_DIFFERENT = 3


@click.command()
@click.argument("trial", metavar="TRIAL|best:SWEEP")
@click.option("--steps", type=click.IntRange(min=1), help="Train so many, up to the next report.")
@click.option("--data", help="Where the recordings are here, if not where they were.")
@device_option
@places_options
@json_option
def rerun(
    trial: str, steps: int | None, data: str | None, device: str, as_json: bool, **places: Any
) -> None:
    """Train TRIAL again here, without Ray, and compare with its record.

    The record is the storage root's, or MLflow's with --tracking-uri. Exits with 0 when it came
    out the same, with 3 when not.
    """
    from sweeps.engine.recorded import find_record
    from sweeps.engine.rerun import rows_up_to

    where = Places(**places)
    record, rows = find_record(trial, where)
    config = _config_here(record, where, data=data, device=device)
    found = _train_again(record, rows_up_to(rows, steps), config)
    if as_json:
        click.echo(json.dumps({"trial": record.fingerprint, **found.to_json()}, indent=2))
    else:
        click.echo(_tell(found))
    for warning in found.warnings:
        click.echo(f"WARNING: {warning}", err=True)
    sys.exit(0 if found.difference is None else EXIT_DIFFERENT)


def _config_here(
    record: "Record", places: Places, *, data: str | None, device: str
) -> "TrainConfig":
    """Return a record's configuration with this machine's places in it."""
    from trainer.config import TrainConfig

    fields = record.config.to_fields()
    if data is not None:
        path = data if data == "demo" else resolve_path("data", data, relative_to=Path.cwd())
        fields["data.path"] = str(path)
    fields["data.fingerprint"] = record.data_fingerprint
    fields["data.cache"] = str(places.root(create=True).cache)
    fields["device"] = device
    return TrainConfig.from_fields(fields)


def _train_again(record: "Record", rows: Sequence["Row"], config: "TrainConfig") -> "Comparison":
    from tqdm import tqdm

    from sweeps.engine.rerun import rerun as train_again

    last = rows[-1]["step"] if rows else 0
    with tqdm(total=last, unit="step", desc=record.fingerprint, file=sys.stderr) as bar:

        def advance(row: "Row") -> None:
            bar.update(int(row["step"]) - bar.n)

        commit = commit_of(Path(__file__).parent)
        return train_again(record, rows, config, commit=commit, on_row=advance)


def _tell(found: "Comparison") -> str:
    rule, reason = "equal to the last bit", found.rule.why
    if not found.rule.is_exact:
        rule = f"within {found.rule.tolerance(found.steps):.2g}, relatively, at the last step"
    verdict = f"same: {found.rows} reports up to step {found.steps}"
    if found.difference is not None:
        verdict = f"different at {found.difference}"
    return f"rule: {rule} ({reason})\n{verdict}"
