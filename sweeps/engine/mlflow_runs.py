"""A sweep's runs in MLflow: one parent, one child a trial, addressed by id through the client.

Every write may be made twice: a child is found again by its fingerprint, and takes one row a step.
A second one need not be equal: a trial that lost its last checkpoint trains the same steps again,
at another time.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from sweeps.engine.mlflow_store import make_database
from sweeps.engine.outcomes import Outcome, TrialRecord, gain_percent
from trainer.config import METRIC
from trainer.journal import Row

CONFIG_ARTIFACT = "config.json"

_STATUS: Mapping[Outcome, str] = {
    "finished": "FINISHED",
    "stopped": "KILLED",
    "interrupted": "KILLED",
    "diverged": "FAILED",
    "out_of_memory": "FAILED",
    "failed": "FAILED",
}
_ROWS_AT_ONCE = 20
"""MLflow takes 1,000 metrics at once; a row has 50 at most, and is written whole or not at all."""
FINAL_METRICS = frozenset({"value", "gain_percent"})
"""What a run gets at its end, beside the rows of its journal."""


@dataclass(frozen=True, kw_only=True)
class TrackedSweep:
    """What is written on a sweep's parent run, and on every child."""

    name: str
    study: str
    turn: int
    """Grows with every run of any sweep: the largest is the one that ran last."""
    do_nothing: Mapping[str, float]
    tags: Mapping[str, str]
    tracking_uri: str
    artifacts: str | None
    """URI where artifacts go; none leaves it to the tracking server."""
    database: Path | None = None
    """The file of MLflow's store, where that is the storage root's own."""


Journey = Callable[[], tuple[list[Row], str]]
"""Reads a trial's journal, and its record as text."""


@dataclass(kw_only=True)
class Dues:
    """What is still to be written of one trial."""

    params: Mapping[str, object] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    config: str = ""
    """The trial's record, as text."""
    ending: TrialRecord | None = None
    error_text: str = ""
    read: Journey | None = None
    """Reads rows and record of a trial that ended under an earlier driver: there may be thousands,
    and they are not needed where the run has the outcome already."""

    def add(self, later: "Dues") -> None:
        """Add what came to be due later."""
        self.params = later.params or self.params
        self.tags |= later.tags
        self.rows += later.rows
        self.config = later.config or self.config
        self.ending = later.ending or self.ending
        self.error_text = later.error_text or self.error_text
        self.read = self.read or later.read

    @property
    def is_whole(self) -> bool:
        """Whether this is all there is of an ended trial, and nothing else."""
        return self.read is not None and not (self.rows or self.tags)

    def read_out(self) -> None:
        """Read what is to be read."""
        if self.read is not None:
            rows, config = self.read()
            self.rows, self.config, self.read = rows + self.rows, self.config or config, None


class SweepRuns:
    """The runs of one sweep, made where they are missing."""

    def __init__(self, sweep: TrackedSweep, *, on_run: Callable[[str, str], None]) -> None:
        """Find or make the parent. `on_run(fingerprint, run id)` is called for each child."""
        # urllib3 has a line for every call that it tries again, MLflow a traceback for every
        # lock of a database that it waits for: whoever writes here tells it once.
        for talkative in ("urllib3.connectionpool", "mlflow.store.db.utils"):
            logging.getLogger(talkative).setLevel(logging.CRITICAL)
        self._sweep = sweep
        self._on_run = on_run
        if sweep.database is not None:
            make_database(sweep.database)
        self._client = MlflowClient(sweep.tracking_uri)
        self._experiment_id = self._find_experiment()
        self._parent_id = self._open_parent()
        self._runs: dict[str, str] = {}
        self._outcomes: dict[str, str] = {}
        self._started_ms: dict[str, int] = {}
        self._times_ms: dict[str, dict[int, int]] = {}
        """Of open trials: when the steps were that their runs have been told of."""
        for run in self._children(self._parent_id):
            self._know(run)

    def write(self, fingerprint: str, dues: Dues) -> None:
        """Write what is due of a trial, its outcome last."""
        if dues.is_whole and dues.ending and self._has_all(dues.ending):
            return
        dues.read_out()
        run_id = self._runs.get(fingerprint) or self._create_child(fingerprint)
        tags = {"outcome": "running", "error": "", **dues.tags}
        if dues.ending is None:
            self._client.update_run(run_id, status="RUNNING")
        params = [Param(name, str(value)) for name, value in dues.params.items()]
        shown = [RunTag(name, value) for name, value in tags.items()]
        self._client.log_batch(run_id, params=params, tags=shown, synchronous=True)
        self._write_rows(fingerprint, dues.rows)
        for name, text in ((CONFIG_ARTIFACT, dues.config), ("error.txt", dues.error_text)):
            if text:
                self._client.log_text(run_id, text, name)
        if dues.ending is not None:
            self._end(run_id, dues.ending)

    def finish(
        self, ranked: Iterable[TrialRecord], *, on_rank: Callable[[], None] = lambda: None
    ) -> None:
        """Write every trial's rank, and end the sweep's run. `on_rank()` is called after each."""
        for position, record in enumerate(ranked, start=1):
            run_id = self._runs.get(record.fingerprint)
            if run_id is not None:
                self._client.set_tag(run_id, "rank", str(position))
                on_rank()
        self._client.set_terminated(self._parent_id)

    def _write_rows(self, fingerprint: str, rows: Iterable[Row]) -> None:
        times_ms = self._times_of(fingerprint)
        new: dict[int, Row] = {}
        for row in rows:
            if row["step"] not in times_ms:
                new.setdefault(row["step"], row)
        for first in range(0, len(new), _ROWS_AT_ONCE):
            some = list(new.values())[first : first + _ROWS_AT_ONCE]
            metrics = [metric for row in some for metric in _metrics_of(row)]
            self._client.log_batch(self._runs[fingerprint], metrics=metrics, synchronous=True)
            times_ms |= {row["step"]: row["time_ms"] for row in some}

    def _times_of(self, fingerprint: str) -> dict[int, int]:
        """Return when each step was that a trial's run has been told of."""
        if fingerprint not in self._times_ms:
            history = self._client.get_metric_history(self._runs[fingerprint], METRIC)
            self._times_ms[fingerprint] = {point.step: point.timestamp for point in history}
        return self._times_ms[fingerprint]

    def _has_all(self, record: TrialRecord) -> bool:
        # An interrupted trial may have gone on, and been interrupted again unseen.
        return record.is_ended and self._outcomes.get(record.fingerprint) == record.outcome

    def _end(self, run_id: str, record: TrialRecord) -> None:
        tags = {"error": record.error, "taken_over_from": record.taken_over_from}
        tags["restarts"] = str(record.restarts or "")
        final = {
            "value": record.value,
            "gain_percent": gain_percent(record.value, self._sweep.do_nothing[METRIC]),
        }
        # Of the last row: written twice, it is one.
        times_ms = self._times_of(record.fingerprint)
        latest_ms = max(times_ms.values(), default=self._started_ms[record.fingerprint])
        time_ms = times_ms.get(record.step, latest_ms)
        metrics = [Metric(k, v, time_ms, record.step) for k, v in final.items() if v is not None]
        shown = [RunTag(name, value) for name, value in tags.items() if value]
        self._client.log_batch(run_id, metrics=metrics, tags=shown, synchronous=True)
        self._client.set_terminated(run_id, _STATUS[record.outcome])
        self._client.set_tag(run_id, "outcome", record.outcome)
        self._outcomes[record.fingerprint] = record.outcome
        del self._times_ms[record.fingerprint]

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._sweep.name)
        if found is None:
            place = self._sweep.artifacts
            return self._client.create_experiment(self._sweep.name, artifact_location=place)
        if found.lifecycle_stage == LifecycleStage.DELETED:
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _open_parent(self) -> str:
        study = self._sweep.study
        mine = f"tags.study = '{study}' and tags.kind = 'sweep'"
        oldest_first = ["attributes.start_time ASC"]
        found = self._client.search_runs([self._experiment_id], mine, order_by=oldest_first)
        tags = {**self._sweep.tags, "study": study, "kind": "sweep"}
        run = (
            found[0]
            if found
            else self._client.create_run(self._experiment_id, tags=tags, run_name=study)
        )
        parent_id = str(run.info.run_id)
        for double in found[1:]:  # the server made one of a call that it did not answer in time
            for child in self._children(double.info.run_id):
                self._client.set_tag(child.info.run_id, MLFLOW_PARENT_RUN_ID, parent_id)
            self._client.delete_run(double.info.run_id)
        scores = [
            Metric(f"do_nothing_{name}", value, run.info.start_time, 0)
            for name, value in self._sweep.do_nothing.items()
        ]
        turn = [RunTag("turn", str(self._sweep.turn))]
        self._client.log_batch(parent_id, metrics=scores, tags=turn, synchronous=True)
        self._client.update_run(parent_id, status="RUNNING")
        return parent_id

    def _create_child(self, fingerprint: str) -> str:
        tags = {
            **self._sweep.tags,
            MLFLOW_PARENT_RUN_ID: self._parent_id,
            "kind": "trial",
            "study": self._sweep.study,
            "fingerprint": fingerprint,
        }
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=fingerprint)
        self._know(run)
        self._times_ms[fingerprint] = {}
        return self._runs[fingerprint]

    def _know(self, run: Run) -> None:
        fingerprint = run.data.tags["fingerprint"]
        if fingerprint in self._runs:
            self._client.delete_run(run.info.run_id)  # a double, likewise
            return
        self._runs[fingerprint] = str(run.info.run_id)
        self._outcomes[fingerprint] = run.data.tags.get("outcome", "")
        self._started_ms[fingerprint] = int(run.info.start_time)
        self._on_run(fingerprint, str(run.info.run_id))

    def _children(self, parent_id: str) -> list[Run]:
        """Return the runs of trials, the oldest first."""
        found: list[Run] = []
        token = None
        wanted = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_id}' and tags.kind = 'trial'"
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                wanted,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            found += page
            token = page.token
            if not token:
                return found


def _metrics_of(row: Row) -> list[Metric]:
    step, time_ms = row["step"], row["time_ms"]
    return [
        Metric(name, value, time_ms, step)
        for name, value in row.items()
        if isinstance(value, int | float) and name not in ("step", "time_ms")
    ]
