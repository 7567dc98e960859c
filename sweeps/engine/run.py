"""A sweep, from the command line to the leaderboard."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

import cluster.environment
from sweeps.engine.options import SweepOptions, sweep_options
from sweeps.engine.study import Space


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One question asked of the trainer."""

    name: str
    """The script's name."""
    space: Space
    """What varies: suggest(trial) -> {dotted field: value}."""
    known_points: Sequence[Mapping[str, object]] = ()
    """Tried first."""


def main(sweep: Sweep) -> None:
    """Run a sweep script's command line."""
    cluster.environment.apply()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")

    @click.command(
        name=sweep.name,
        help=sys.modules["__main__"].__doc__,
        context_settings={"show_default": True},
    )
    @sweep_options
    @click.pass_context
    def command(context: click.Context, /, **values: Any) -> None:
        told = context.get_parameter_source("storage") == ParameterSource.COMMANDLINE
        try:
            options = SweepOptions(**values, storage_is_implied=not told)
            run_sweep(sweep, options, show=click.echo)
        except ValueError as error:
            raise click.UsageError(str(error)) from error

    command()


def run_sweep(sweep: Sweep, options: SweepOptions, *, show: Callable[[str], None]) -> None:
    """Run a sweep until it has its trials, going on where an earlier run of it stopped.

    Raises ValueError for what the user can put right.
    """
    # Imported here so that --help and a wrong option answer at once.
    from sweeps.engine.setting import hold_sweep, prepare
    from sweeps.engine.tuning import connect, run_trials

    with connect(options) as machines:
        setting = prepare(sweep, options, machines, show=show)
        if options.dry_run:
            return
        with hold_sweep(setting):
            study = setting.open_study()
            run_trials(setting, study, show=show)
        show(setting.summary(study))
