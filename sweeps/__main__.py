"""The `unshift` command. Ray, torch and MLflow are imported only by the commands that need them."""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import cluster.environment
from cluster.commit import commit_of
from sweeps.engine.options import storage_option
from trainer.command_line import run_command

if TYPE_CHECKING:
    from optuna.study import Study

    from sweeps.engine.rerun import Comparison
    from sweeps.engine.store import Root
    from trainer.config import TrainConfig
    from trainer.journal import Row
    from trainer.record import Record

EXIT_DIFFERENT = 3

study_option = click.option("--study-storage", help="Database URL of the Optuna study.")
tracking_option = click.option("--tracking-uri", help="MLflow's store or server.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")


@click.group()
def commands() -> None:
    """Look at sweeps, and run their trials again. `make sweep` starts one."""


def main() -> None:
    """Run the command line."""
    cluster.environment.apply()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, in good order
    run_command(commands)


@commands.command()
@click.argument("sweep")
@storage_option
@study_option
@json_option
def leaderboard(sweep: str, storage: str, study_storage: str | None, as_json: bool) -> None:
    """Show the trials of SWEEP by validation, do-nothing's score among them."""
    from sweeps.engine.leaderboard import format_leaderboard, read_leaderboard

    board = read_leaderboard(_find_study(sweep, _root(storage), study_storage))
    click.echo(json.dumps(board, indent=2) if as_json else format_leaderboard(board))


@commands.command()
@click.argument("trial", metavar="TRIAL|best:SWEEP")
@click.option("--steps", type=click.IntRange(min=1), help="Train so many, up to the next report.")
@click.option("--data", help="Where the recordings are here, if not where they were.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps.")
@storage_option
@study_option
@tracking_option
@json_option
def rerun(trial: str, steps: int | None, as_json: bool, **places: Any) -> None:
    """Train TRIAL again here, without Ray, and compare with its record.

    The record is the storage root's, or MLflow's with --tracking-uri. Exits with 0 when it came
    out the same, with 3 when not.
    """
    from sweeps.engine.rerun import rows_up_to

    record, rows = _find_record(trial, places)
    found = _train_again(record, rows_up_to(rows, steps), _config_here(record, places))
    if as_json:
        click.echo(json.dumps({"trial": record.fingerprint, **found.to_json()}, indent=2))
    else:
        click.echo(_tell(found))
    for warning in found.warnings:
        click.echo(f"WARNING: {warning}", err=True)
    sys.exit(0 if found.difference is None else EXIT_DIFFERENT)


@commands.command()
@click.argument("sweep", required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@storage_option
@study_option
@tracking_option
def ui(sweep: str | None, port: int, **places: Any) -> None:
    """Start MLflow's UI on this machine's loopback, sorted by validation; Ctrl-C ends it.

    Shows SWEEP, or the one that ran last.
    """
    from sweeps.engine.ui import serve

    uri = places["tracking_uri"] or _root(places["storage"]).tracking_uri
    serve(_database("tracking-uri", uri), sweep, port=port, show=click.echo)


def _root(storage: str) -> "Root":
    from sweeps.engine.store import Root

    return Root.open(storage, relative_to=Path.cwd(), create=False)


def _find_study(sweep: str, root: "Root", study_storage: str | None) -> "Study":
    from sweeps.engine.store import find_study, open_optuna

    url = _database("study-storage", study_storage or root.study_url)
    return find_study(open_optuna(url), sweep)


def _find_record(trial: str, places: dict[str, Any]) -> tuple["Record", Sequence["Row"]]:
    from sweeps.engine.recorded import find_in_mlflow, find_on_disk

    if places["tracking_uri"] is not None:
        return find_in_mlflow(trial, _database("tracking-uri", places["tracking_uri"]))
    root = _root(places["storage"])
    return find_on_disk(trial, root, study_url=places["study_storage"] or root.study_url)


def _database(field: str, url: str) -> str:
    from sweeps.engine.places import resolve_database

    return resolve_database(field, url, relative_to=Path.cwd(), must_exist=True)


def _config_here(record: "Record", places: dict[str, Any]) -> "TrainConfig":
    """Return a record's configuration with this machine's places in it."""
    from sweeps.engine.places import resolve_path
    from sweeps.engine.store import Root
    from trainer.config import TrainConfig

    fields = record.config.to_fields()
    if (data := places["data"]) is not None:
        path = data if data == "demo" else resolve_path("data", data, relative_to=Path.cwd())
        fields["data.path"] = str(path)
    fields["data.fingerprint"] = record.data_fingerprint
    storage = Root.open(places["storage"], relative_to=Path.cwd(), create=True)
    fields["data.cache"] = str(storage.cache)
    fields["device"] = places["device"]
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


if __name__ == "__main__":
    main()
