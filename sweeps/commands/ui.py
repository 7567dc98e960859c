"""`unshift ui`."""

from typing import Any

import click

from sweeps.commands.options import places_options
from sweeps.engine.places import Places


@click.command()
@click.argument("sweep", required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@places_options
def ui(sweep: str | None, port: int, **places: Any) -> None:
    """Start MLflow's UI on this machine's loopback, sorted by validation; Ctrl-C ends it.

    Shows SWEEP, or the one that ran last.
    """
    from sweeps.engine.ui import serve

    serve(Places(**places).tracking_url(), sweep, port=port, show=click.echo)
