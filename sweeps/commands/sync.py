"""`unshift sync`."""

from typing import Any

import click

from sweeps.commands.options import places_options
from sweeps.engine.places import Places, resolve_database


@click.command()
@click.argument("sweep", required=False)
@places_options
def sync(sweep: str | None, **places: Any) -> None:
    """Write to MLflow what it lacks of SWEEP, or of every sweep: after an outage, say.

    What is written twice is there once.
    """
    from sweeps.engine.store import find_studies, find_study, open_optuna
    from sweeps.engine.sync import deliver

    where = Places(**places)
    root = where.root()
    url = where.study_url()
    storage = open_optuna(url)
    uri = where.tracking_uri or root.tracking_uri
    uri = resolve_database("tracking-uri", uri, relative_to=where.relative_to, must_exist=False)
    for study in [find_study(storage, sweep)] if sweep else find_studies(storage):
        deliver(study, root=root, study_url=url, tracking_uri=uri, show=click.echo)
