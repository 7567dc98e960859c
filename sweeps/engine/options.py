"""The options that every sweep script takes, and what they mean once read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from cluster.commit import UNKNOWN
from trainer.sizes import SIZES

DEFAULT_STORAGE = "~/.unshift"
DEFAULT_TRIALS = 16

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What a user asks of one run of a sweep."""

    data: str
    size: str | None
    """None: by whether there is a GPU."""
    trials: int
    max_steps: int | None
    """None: what the size says."""
    storage: str
    seed: int
    tracking_uri: str | None
    """None: a store under the storage root."""
    study_storage: str | None
    """None: likewise."""
    concurrency: int | None
    """None: as many as fit."""
    gpus_per_trial: float | None
    """None: from 1/8 to all of one by what each trial needs, where there are GPUs."""
    keep_gb: float | None
    """Most that weights and checkpoints of trials may take; None: all are kept."""
    settings: tuple[str, ...]
    """FIELD=JSON for all trials."""
    dry_run: bool
    relative_to: Path
    """What relative paths are relative to: a job runs elsewhere than it was submitted from."""
    commit: str
    unshift_command: str
    again_command: str
    """What a user types to go on, with {trials} for the number of trials."""
    told_places: str
    """The options by which other commands find the same storage, as they were typed."""


def sweep_options(function: _Function) -> _Function:
    """Add the options of every sweep script to a command."""
    options = [
        click.option("--data", default="demo", help="Folder of recordings, or demo."),
        click.option("--size", type=click.Choice(list(SIZES)), help="The net and its budget."),
        click.option("--trials", type=click.IntRange(min=1), default=DEFAULT_TRIALS),
        click.option("--max-steps", type=click.IntRange(min=1), help="Steps of a whole trial."),
        storage_option,
        click.option("--seed", type=click.IntRange(min=0), default=0),
        click.option("--tracking-uri", help="MLflow's store or server."),
        click.option("--study-storage", help="Database URL of the Optuna study."),
        click.option("--concurrency", type=click.IntRange(min=1), help="Most trials at once."),
        click.option("--gpus-per-trial", type=click.FloatRange(min=0), help="May be a share."),
        click.option(
            "--keep-gb",
            type=click.FloatRange(min=0),
            help="Delete the worst ended trials' weights and checkpoints above so much.",
        ),
        set_option,
        click.option("--dry-run", is_flag=True, help="Say what would run, and end."),
        # What the launcher tells about itself; a job does not run where it was submitted from.
        click.option("--relative-to", default=".", hidden=True, type=click.Path(path_type=Path)),
        click.option("--commit", envvar="UNSHIFT_COMMIT", default=UNKNOWN, hidden=True),
        click.option("--unshift-command", default="unshift", hidden=True),
        click.option("--again-command", default="", hidden=True),
    ]
    for option in reversed(options):
        function = option(function)
    return function


set_option = click.option(
    "--set", "settings", multiple=True, metavar="FIELD=JSON", help="Change any field of all trials."
)

storage_option = click.option(
    "--storage",
    envvar="UNSHIFT_HOME",
    default=DEFAULT_STORAGE,
    show_default=True,
    show_envvar=True,
    help="Folder for the study, the record and the trials.",
)
