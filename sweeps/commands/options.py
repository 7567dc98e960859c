"""Options that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sweeps.engine.options import storage_option

_Function = TypeVar("_Function", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps."
)
force_option = click.option("--force", is_flag=True, help="Replace what exists.")
study_option = click.option("--study-storage", help="Database URL of the Optuna study.")
tracking_option = click.option("--tracking-uri", help="MLflow's store or server.")
address_option = click.option(
    "--address",
    metavar="URL",
    help="The cluster's dashboard; else RAY_API_SERVER_ADDRESS, RAY_ADDRESS, this machine's.",
)


def places_options(function: _Function) -> _Function:
    """Add the options of sweeps.engine.places.Places to a command."""
    for option in (tracking_option, study_option, storage_option):
        function = option(function)
    return function
