"""A sweep, from the command line to the leaderboard."""

import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

import cluster.environment
from cluster.credentials import refuse_secrets
from search_spaces.space import SearchSpace, Shared
from sweeps.engine.gpu_memory import GpuMemory
from sweeps.engine.options import SweepOptions, sweep_options
from trainer.command_line import run_command

Suggest = Callable[[Any], dict[str, object]]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One question asked of the trainer."""

    name: str
    """The script's name."""
    space: Suggest | None = None
    """What varies: suggest(trial) -> {dotted field: value}."""
    known_points: Sequence[Mapping[str, object]] = ()
    """Tried first."""
    space_for: Callable[[Shared], SearchSpace] | None = None
    """Instead of these two, where what varies depends on what all trials share."""
    annotate: Callable[[Mapping[str, object]], Mapping[str, str]] | None = None
    """What tables show of a trial, by column, from its varied fields; else the fields."""
    stops_early: bool = True
    """Whether ASHA stops weak trials; a comparison side by side lets all come to the end."""
    gpu_memory: GpuMemory = GpuMemory()
    """How memory of GPUs is read, where there are any."""

    def __post_init__(self) -> None:
        if (self.space is None) == (self.space_for is None):
            raise ValueError(f"sweep={self.name}; must have either space or space_for")

    def search_space(self, shared: Shared) -> SearchSpace:
        """Return what varies among trials that share so much."""
        if self.space_for is not None:
            return self.space_for(shared)
        assert self.space is not None
        return SearchSpace(suggest=self.space, known_points=self.known_points)


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
        typed = {
            name: value
            for name, value in values.items()
            if context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        }
        values["told_places"] = _as_typed(typed, _PLACES)
        values["again_command"] = values["again_command"] or _again(typed)
        run_sweep(sweep, SweepOptions(**values), show=click.echo)

    run_command(command, check=refuse_secrets)


def run_sweep(sweep: Sweep, options: SweepOptions, *, show: Callable[[str], None]) -> None:
    """Run a sweep until it has its trials, going on where an earlier run of it stopped.

    Raises ValueError for what the user can put right.
    """
    # Imported here so that --help and a wrong option answer at once.
    from sweeps.engine.dry_run import rehearse
    from sweeps.engine.machines import connect
    from sweeps.engine.published import publish_best
    from sweeps.engine.setting import hold_sweep, open_inputs, resolve
    from sweeps.engine.tuning import run_trials

    inputs = open_inputs(options)
    with connect(sweep.gpu_memory, show=show) as view:
        setting = resolve(sweep, options, inputs, view.wait(), show=show)
        if options.dry_run:
            show(str(rehearse(setting)))
            return
        with hold_sweep(setting):
            study = setting.open_study()
            if run_trials(setting, study, view, show=show):
                publish_best(study, root=setting.root, tracking_uri=inputs.tracking_uri, show=show)
        show(setting.summary(study))


_PLACES = ("storage", "study_storage", "tracking_uri")


def _again(typed: Mapping[str, Any]) -> str:
    """Return this command as it was typed, with {trials} for the number of trials."""
    others = [name for name in typed if name not in ("trials", "dry_run")]
    return f"python {shlex.quote(sys.argv[0])}{_as_typed(typed, others)} --trials {{trials}}"


def _as_typed(typed: Mapping[str, Any], names: Sequence[str]) -> str:
    given = [("set", s) for s in typed.get("settings", ())] if "settings" in names else []
    given += [(name, str(typed[name])) for name in names if name in typed and name != "settings"]
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(value)}" for name, value in given)
