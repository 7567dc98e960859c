"""`unshift attach`."""

import sys

import click

from sweeps.commands.jobs import follow_job, told_in_one_line
from sweeps.commands.options import address_option


@click.command()
@click.argument("job", required=False)
@address_option
def attach(job: str | None, address: str | None) -> None:
    """Follow JOB, or the only one that runs: what it has printed, and what it will.

    Ends with the status of the job's script. Ctrl-C leaves the job alone.
    """
    from cluster.dashboard import Dashboard
    from cluster.remote import find_job

    with told_in_one_line():
        dashboard = Dashboard.at(address)
        found = find_job(dashboard, job)["submission_id"]
    sys.exit(follow_job(dashboard, found))
