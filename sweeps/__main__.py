"""The `unshift` command: a group of the commands in sweeps/commands/."""

import signal

import click

import cluster.environment
from cluster.credentials import refuse_secrets
from sweeps.commands.attach import attach
from sweeps.commands.compare import compare
from sweeps.commands.damage import damage
from sweeps.commands.describe import describe
from sweeps.commands.export import export
from sweeps.commands.leaderboard import leaderboard
from sweeps.commands.rerun import rerun
from sweeps.commands.restore import restore
from sweeps.commands.stop import stop
from sweeps.commands.submit import submit
from sweeps.commands.sync import sync
from sweeps.commands.ui import ui
from trainer.command_line import run_command


@click.group()
def commands() -> None:
    """Look at sweeps, and use their trials. `make sweep` starts one."""


_MINE = (attach, compare, damage, describe, export, leaderboard, rerun, restore, stop, submit)
for command in (*_MINE, sync, ui):
    commands.add_command(command)


def main() -> None:
    """Run the command line."""
    cluster.environment.apply()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, in good order
    run_command(commands, check=refuse_secrets)


if __name__ == "__main__":
    main()
