"""`unshift leaderboard`."""

import json

import click

from sweeps.commands.options import json_option, study_option
from sweeps.engine.options import storage_option
from sweeps.engine.places import Places


@click.command()
@click.argument("sweep")
@storage_option
@study_option
@json_option
def leaderboard(sweep: str, storage: str, study_storage: str | None, as_json: bool) -> None:
    """Show the trials of SWEEP by validation, do-nothing's score among them."""
    from sweeps.engine.leaderboard import format_leaderboard, read_leaderboard
    from sweeps.engine.store import find_study, open_optuna

    places = Places(storage=storage, study_storage=study_storage)
    board = read_leaderboard(find_study(open_optuna(places.study_url()), sweep))
    click.echo(json.dumps(board, indent=2) if as_json else format_leaderboard(board))
