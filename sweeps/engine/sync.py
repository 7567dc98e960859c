"""Writing to MLflow what it lacks of a sweep: journals and study are the truth, MLflow a copy."""

import functools
from collections.abc import Callable

from filelock import Timeout
from optuna.study import Study

from sweeps.engine.mlflow_runs import Dues, SweepRuns, TrackedSweep
from sweeps.engine.mlflow_store import open_client
from sweeps.engine.outcomes import rank
from sweeps.engine.root import Root
from sweeps.engine.store import TURN, hold_name, keep_run_id, read_facts
from sweeps.engine.study_records import read_records

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""MLflow's stores without a server, to which artifacts would go into the working directory."""


def track(study: Study, *, root: Root, tracking_uri: str, commit: str) -> TrackedSweep:
    """Return what MLflow is told of a sweep, by its study."""
    facts = read_facts(study)
    is_local = tracking_uri == f"sqlite:///{root.tracking_file}"
    return TrackedSweep(
        name=facts["sweep"],
        study=study.study_name,
        turn=study.user_attrs[TURN],
        do_nothing=facts["do_nothing"],
        tags={
            "commit": commit,
            "data": facts["data_fingerprint"],
            "size": facts["size"],
            "setting": f"{facts['sweep']}@{facts['setting']}",
        },
        tracking_uri=tracking_uri,
        artifacts=root.artifacts if tracking_uri.startswith(_DATABASES) else None,
        database=root.tracking_file if is_local else None,
    )


def deliver(
    study: Study,
    *,
    root: Root,
    study_url: str,
    tracking_uri: str,
    show: Callable[[str], None],
) -> None:
    """Write all of a sweep's trials that MLflow does not have whole; twice is as good as once.

    Raises ValueError when the sweep is running, whose driver writes, or MLflow does not take it.
    """
    facts = read_facts(study)
    name = f"{facts['sweep']}@{facts['setting']}"
    try:
        with hold_name(root, study_url, name), open_client(tracking_uri):
            written = _deliver(study, root, tracking_uri)
    except Timeout as error:
        raise ValueError(f"sweep={name}; must not be running: its driver writes by itself") from (
            error
        )
    show(f"{study.study_name}: {written} trials are in MLflow as they are on disk")


def _deliver(study: Study, root: Root, tracking_uri: str) -> int:
    records = rank(read_records(study))
    commits = (root.read_commit(record.fingerprint) for record in records)
    commit = next((commit for commit in commits if commit), "unknown")
    tracked = track(study, root=root, tracking_uri=tracking_uri, commit=commit)
    runs = SweepRuns(tracked, on_run=lambda trial, run_id: keep_run_id(study, trial, run_id))
    for record in records:
        read = functools.partial(root.read_journey, record.fingerprint, until=record.step)
        runs.write(record.fingerprint, Dues(params=record.params, ending=record, read=read))
    runs.finish(records)
    return len(records)
