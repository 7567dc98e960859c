"""`unshift rerun`."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cluster.commit import commit_of
from sweeps.commands.options import device_option, json_option, places_options
from sweeps.engine.places import Places, resolve_path
from trainer.command_line import INTERRUPTED, OTHER_OUTCOME
from trainer.config import METRIC

if TYPE_CHECKING:
    from sweeps.engine.rerun import Comparison
    from trainer.config import TrainConfig
    from trainer.journal import Row
    from trainer.record import Record
    from trainer.train import TrainResult


@click.command()
@click.argument("trial", metavar="TRIAL|best:SWEEP")
@click.option("--steps", type=click.IntRange(min=1), help="Train so many, up to the next report.")
@click.option("--full", is_flag=True, help="Train the log's 10,000 steps, or --steps, and keep it.")
@click.option("--data", help="Where the recordings are here, if not where they were.")
@device_option
@places_options
@json_option
def rerun(
    trial: str,
    steps: int | None,
    full: bool,
    data: str | None,
    device: str,
    as_json: bool,
    **places: Any,
) -> None:
    """Train TRIAL again here, without Ray, and compare with its record.

    The record is the storage root's, or MLflow's with --tracking-uri. Exits with 0 when it came
    out the same, with 3 when not.

    With --full, train TRIAL's recipe at the log's length instead, as a trial of its own in the
    storage root, for restore to use. Ctrl-C stops it in good order; the same command goes on.
    """
    from sweeps.engine.recorded import find_record
    from sweeps.engine.rerun import rows_up_to

    where = Places(**places)
    record, rows = find_record(trial, where)
    config = _config_here(record, where, data=data, device=device)
    if full:
        sys.exit(_train_full(record, config, steps, where, as_json=as_json))
    found = _train_again(record, rows_up_to(rows, steps), config)
    if as_json:
        click.echo(json.dumps({"trial": record.fingerprint, **found.to_json()}, indent=2))
    else:
        click.echo(_tell(found))
    for warning in found.warnings:
        click.echo(f"WARNING: {warning}", err=True)
    sys.exit(0 if found.difference is None else OTHER_OUTCOME)


def _train_full(
    record: "Record", config: "TrainConfig", steps: int | None, places: Places, *, as_json: bool
) -> int:
    """Train at full length, show how it went, and return the exit status."""
    from tqdm import tqdm

    from sweeps.engine.full_run import LOG_STEPS, plan_full_run
    from sweeps.engine.signals import stop_on_signal

    root = places.root(create=True)
    data_fingerprint = record.data_fingerprint
    run = plan_full_run(
        config, data_fingerprint=data_fingerprint, steps=steps or LOG_STEPS, root=root
    )
    do_nothing = run.score_do_nothing()

    def say(name: str) -> None:
        bar.write(f"{name}: the checkpoint is written, and this ends", file=sys.stderr)

    with (
        tqdm(total=run.config.steps, initial=run.step, unit="step", file=sys.stderr) as bar,
        stop_on_signal(say) as asked,
    ):
        bar.set_description(run.fingerprint)

        def after_step() -> bool:
            bar.update()
            return asked.is_set()

        def show(row: "Row") -> None:
            bar.set_postfix(validation=f"{row[METRIC]:.4f}", do_nothing=f"{do_nothing:.4f}")

        commit = commit_of(Path(__file__).parent)
        result = run.train(commit=commit, on_row=show, should_stop=after_step)
    if as_json:
        told = {"trial": record.fingerprint, "fingerprint": run.fingerprint}
        click.echo(json.dumps({**told, **vars(result), "do_nothing": do_nothing}, indent=2))
    else:
        click.echo(_tell_full(run.fingerprint, result, do_nothing, _storage_as_typed(places)))
    return {"finished": 0, "interrupted": INTERRUPTED}.get(result.outcome, OTHER_OUTCOME)


def _storage_as_typed(places: Places) -> str:
    """Return the option by which another command finds the same storage."""
    source = click.get_current_context().get_parameter_source("storage")
    is_typed = source == ParameterSource.COMMANDLINE
    return f" --storage {shlex.quote(places.storage)}" if is_typed else ""


def _tell_full(fingerprint: str, result: "TrainResult", do_nothing: float, storage: str) -> str:
    reached = f"{fingerprint} {result.outcome} at step {result.step}"
    if result.value is None:
        return f"{reached}, before its first validation; the same command goes on"
    lines = [f"{reached}: best validation {result.value:.4f}, do nothing {do_nothing:.4f}"]
    if result.outcome == "interrupted":
        lines.append("The same command goes on.")
    if result.outcome == "diverged":
        lines.append(f"{result.reason}; what is kept is the best validation's.")
    lines += ["Use it:", f"  unshift restore --trial {fingerprint}{storage} IN OUT"]
    return "\n".join(lines)


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
