"""A sweep script's arguments, read without running it."""

from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from cluster.credentials import refuse_secrets
from sweeps.engine.options import SweepOptions, sweep_options

_SQLITE = "sqlite:///"


@click.command()
@sweep_options
def _sweep() -> None:
    """Take what every sweep script takes."""


def read_arguments(arguments: Sequence[str]) -> SweepOptions:
    """Return what arguments ask for. Raises click.UsageError, and ValueError for a password."""
    refuse_secrets(arguments)
    return SweepOptions(**_read(arguments).params, told_places="")


def check_arguments(arguments: Sequence[str]) -> list[str]:
    """Return in a line each what cannot mean anything where a job runs."""
    context = _read(arguments)
    typed = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE
    }
    faults = [
        f"{option}={typed[name]}; must be absolute: a job runs in a folder of its own"
        for name, option in (("data", "data"), ("storage", "storage"))
        if name in typed and not _is_absolute(typed[name])
    ]
    databases = (("study_storage", "study-storage"), ("tracking_uri", "tracking-uri"))
    for name, option in databases:
        url = typed.get(name, "")
        if url.startswith(_SQLITE) and not _is_absolute(url.removeprefix(_SQLITE)):
            faults.append(f"{option}={url}; must be absolute: {_SQLITE}/…, with four slashes")
        if "://" in typed.get("storage", "") and name not in typed:
            faults.append(f"{option} must be given: {typed['storage']} holds files, no database")
    return faults


def _is_absolute(text: str) -> bool:
    return text == "demo" or "://" in text or text.startswith("~") or Path(text).is_absolute()


def _read(arguments: Sequence[str]) -> click.Context:
    return _sweep.make_context("sweep script", list(arguments))
