"""`unshift stop`."""

import click

from sweeps.commands.jobs import told_in_one_line
from sweeps.commands.options import address_option


@click.command()
@click.argument("job", required=False)
@address_option
@click.option("--now", is_flag=True, help="By Ray's own stop: what has no checkpoint is lost.")
def stop(job: str | None, address: str | None, now: bool) -> None:
    """End JOB, or the only one that runs, once its trials have written checkpoints.

    Waits for the end; Ctrl-C ends the waiting alone. The same sweep submitted again goes on.
    """
    from cluster.dashboard import Dashboard
    from cluster.job import ENDED
    from cluster.remote import ask_to_stop, find_job, stop_now, wait_for_end

    with told_in_one_line():
        dashboard = Dashboard.at(address)
        details = find_job(dashboard, job)
        name = details["submission_id"]
        if details["status"] in ENDED:
            raise ValueError(f"JOB={name}; must be one that runs, has {details['status'].lower()}")
        if now:
            stop_now(dashboard, name)
        click.echo(f"{name} {'is killed' if now else ask_to_stop(dashboard, details)}", err=True)
        ending = wait_for_end(dashboard, name)
        click.echo(f"{name} has ended: {ending['status'].lower()}", err=True)
