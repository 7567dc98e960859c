"""The record in MLflow: one parent run a sweep, one child run a trial, from one background writer.

Runs are addressed by id through the client. A child is found again by its fingerprint, and rows
hold their own time stamps, so that what is sent twice is there once.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from sweeps.engine.outcomes import Outcome, TrialRecord, gain_percent
from trainer.config import METRIC
from trainer.journal import Row

logger = logging.getLogger(__name__)

CONFIG_ARTIFACT = "config.json"

_STATUS: Mapping[Outcome, str] = {
    "finished": "FINISHED",
    "stopped": "KILLED",
    "interrupted": "KILLED",
    "diverged": "FAILED",
    "out_of_memory": "FAILED",
    "failed": "FAILED",
}
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 30.0
_METRICS_AT_ONCE = 1000
_FINAL_METRICS = frozenset({"value", "gain_percent"})
"""What a run gets at its end, beside the rows of its journal."""


@dataclass(frozen=True, kw_only=True)
class TrackedSweep:
    """What is written on a sweep's parent run, and on every child."""

    name: str
    study: str
    do_nothing: Mapping[str, float]
    tags: Mapping[str, str]
    tracking_uri: str
    artifacts: Path | None
    """Where artifacts go; none leaves it to the tracking server."""


class Tracking:
    """The one writer. Its methods return at once; `close` waits until all is written."""

    def __init__(self, sweep: TrackedSweep, *, on_run: Callable[[str, str], None]) -> None:
        """Begin. `on_run(fingerprint, run id)` is called, on the writer's thread, for each run."""
        self._sweep = sweep
        self._on_run = on_run
        self._jobs: queue.SimpleQueue[Callable[[_Writer], None] | None] = queue.SimpleQueue()
        self._deadline_s = float("inf")
        self._undelivered = 0
        self._has_warned = False
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def start_trial(self, fingerprint: str, params: Mapping[str, object]) -> None:
        """Open a trial's run, or the one it has already."""
        self._jobs.put(lambda writer: writer.start(fingerprint, params))

    def describe_trial(self, fingerprint: str, tags: Mapping[str, str], config: str) -> None:
        """Add where a trial runs, and the whole of its configuration as an artifact."""
        self._jobs.put(lambda writer: writer.describe(fingerprint, tags, config))

    def add_rows(self, fingerprint: str, rows: Iterable[Row]) -> None:
        """Add rows of a trial's journal."""
        kept = list(rows)
        self._jobs.put(lambda writer: writer.add_rows(fingerprint, kept))

    def end_trial(self, record: TrialRecord, error_text: str = "") -> None:
        """Close a trial's run with its outcome."""
        self._jobs.put(lambda writer: writer.end(record, error_text))

    def reconcile(
        self, records: Iterable[TrialRecord], read_rows: Callable[[str], list[Row]]
    ) -> None:
        """Write what an earlier driver did not come to write, its curves read by fingerprint."""
        kept = list(records)
        self._jobs.put(lambda writer: writer.reconcile(kept, read_rows))

    def close(self, ranked: Iterable[TrialRecord], *, timeout_s: float = 60.0) -> int:
        """Write the ranks and end the sweep's run; return how many writes could not be made."""
        final = list(ranked)
        self._jobs.put(lambda writer: writer.finish(final))
        self._jobs.put(None)
        self._deadline_s = time.monotonic() + timeout_s
        self._thread.join()
        return self._undelivered

    def _work(self) -> None:
        writer = _Writer(self._sweep, self._on_run)
        while (job := self._jobs.get()) is not None:
            self._deliver(writer, job)

    def _deliver(self, writer: "_Writer", job: Callable[["_Writer"], None]) -> None:
        """Do one write, trying again until the store answers or closing takes too long."""
        pause_s = _FIRST_RETRY_S
        while True:
            try:
                writer.connect()
                job(writer)
                return
            except (MlflowException, OSError) as error:
                if not self._has_warned:
                    self._has_warned = True
                    logger.warning("MLflow does not answer; trying again: %s", error)
            if time.monotonic() + pause_s > self._deadline_s:
                self._undelivered += 1
                return
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_RETRY_S)


class _Writer:
    """The writes themselves, each of which may be made twice."""

    def __init__(self, sweep: TrackedSweep, on_run: Callable[[str, str], None]) -> None:
        self._sweep = sweep
        self._on_run = on_run
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._parent_id = ""
        self._runs: dict[str, str] = {}
        self._written: dict[str, str] = {}

    def connect(self) -> None:
        """Find or make the experiment and the sweep's run, once."""
        if self._parent_id:
            return
        self._client = MlflowClient(self._sweep.tracking_uri)
        self._experiment_id = self._find_experiment()
        mine = f"tags.study = '{self._sweep.study}' and tags.kind = 'sweep'"
        found = self._client.search_runs([self._experiment_id], mine, max_results=1)
        parent = found[0] if found else self._create_parent()
        for run in self._children(parent.info.run_id):
            self._know(run.data.tags["fingerprint"], run)
        self._client.update_run(parent.info.run_id, status="RUNNING")
        self._parent_id = parent.info.run_id

    def start(self, fingerprint: str, params: Mapping[str, object]) -> None:
        run_id = self._runs.get(fingerprint)
        if run_id is not None:
            self._connected.update_run(run_id, status="RUNNING")
            self._connected.set_tag(run_id, "outcome", "running")
            return
        tags = {
            **self._sweep.tags,
            MLFLOW_PARENT_RUN_ID: self._parent_id,
            "kind": "trial",
            "study": self._sweep.study,
            "fingerprint": fingerprint,
            "outcome": "running",
        }
        run = self._connected.create_run(self._experiment_id, tags=tags, run_name=fingerprint)
        self._know(fingerprint, run)
        varied = [Param(name, str(value)) for name, value in params.items()]
        self._connected.log_batch(run.info.run_id, params=varied, synchronous=True)

    def describe(self, fingerprint: str, tags: Mapping[str, str], config: str) -> None:
        run_id = self._runs[fingerprint]
        added = [RunTag(name, value) for name, value in tags.items()]
        self._connected.log_batch(run_id, tags=added, synchronous=True)
        self._connected.log_text(run_id, config, CONFIG_ARTIFACT)

    def add_rows(self, fingerprint: str, rows: Iterable[Row]) -> None:
        metrics = [metric for row in rows for metric in _metrics_of(row)]
        for start in range(0, len(metrics), _METRICS_AT_ONCE):
            part = metrics[start : start + _METRICS_AT_ONCE]
            self._connected.log_batch(self._runs[fingerprint], metrics=part, synchronous=True)

    def end(self, record: TrialRecord, error_text: str) -> None:
        run_id = self._runs[record.fingerprint]
        if error_text:
            self._connected.log_text(run_id, error_text, "error.txt")
        tags = {"outcome": record.outcome, "error": record.error}
        tags["taken_over_from"] = record.taken_over_from
        shown = [RunTag(name, value) for name, value in tags.items() if value]
        gain = gain_percent(record.value, self._sweep.do_nothing[METRIC])
        now_ms = time.time_ns() // 1_000_000
        final = {"value": record.value, "gain_percent": gain}
        metrics = [Metric(k, v, now_ms, record.step) for k, v in final.items() if v is not None]
        self._connected.log_batch(run_id, metrics=metrics, tags=shown, synchronous=True)
        self._connected.set_terminated(run_id, _STATUS[record.outcome])
        self._written[record.fingerprint] = record.outcome

    def reconcile(
        self, records: Iterable[TrialRecord], read_rows: Callable[[str], list[Row]]
    ) -> None:
        for record in records:
            if self._written.get(record.fingerprint) != record.outcome:
                self.start(record.fingerprint, record.params)
                self.add_rows(record.fingerprint, read_rows(record.fingerprint))
                self.end(record, "")

    def finish(self, ranked: Iterable[TrialRecord]) -> None:
        for position, record in enumerate(ranked, start=1):
            run_id = self._runs.get(record.fingerprint)
            if run_id is not None:
                self._connected.set_tag(run_id, "rank", str(position))
        self._connected.set_terminated(self._parent_id)

    @property
    def _connected(self) -> MlflowClient:
        assert self._client is not None
        return self._client

    def _find_experiment(self) -> str:
        client = self._connected
        found = client.get_experiment_by_name(self._sweep.name)
        if found is not None:
            return str(found.experiment_id)
        place = None if self._sweep.artifacts is None else self._sweep.artifacts.as_uri()
        return client.create_experiment(self._sweep.name, artifact_location=place)

    def _create_parent(self) -> Run:
        tags = {**self._sweep.tags, "study": self._sweep.study, "kind": "sweep"}
        run = self._connected.create_run(self._experiment_id, tags=tags, run_name=self._sweep.study)
        now_ms = time.time_ns() // 1_000_000
        scores = [
            Metric(f"do_nothing_{name}", value, now_ms, 0)
            for name, value in self._sweep.do_nothing.items()
        ]
        self._connected.log_batch(run.info.run_id, metrics=scores, synchronous=True)
        return run

    def _children(self, parent_id: str) -> Iterable[Run]:
        token = None
        while True:
            page = self._connected.search_runs(
                [self._experiment_id],
                f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_id}'",
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _know(self, fingerprint: str, run: Run) -> None:
        self._runs[fingerprint] = run.info.run_id
        self._written[fingerprint] = run.data.tags.get("outcome", "")
        self._on_run(fingerprint, run.info.run_id)


def find_trial_run(tracking_uri: str, trial: str) -> str:
    """Return the run of a trial, by its fingerprint or as `best:SWEEP`.

    Raises ValueError when there is none.
    """
    client = MlflowClient(tracking_uri)
    experiments = {e.name: e.experiment_id for e in client.search_experiments()}
    wanted, order = f"tags.fingerprint = '{trial}'", None
    if trial.startswith("best:"):
        sweep = trial.removeprefix("best:")
        name = sweep.partition("@")[0]
        experiments = {known: key for known, key in experiments.items() if known == name}
        wanted, order = "tags.outcome = 'finished'", ["metrics.value ASC"]
        if sweep != name:
            wanted += f" and tags.study = '{sweep}'"
    if not experiments:
        raise ValueError(f"trial={trial}; must be of a sweep that {tracking_uri} knows")
    found = client.search_runs(list(experiments.values()), wanted, order_by=order, max_results=1)
    if not found:
        raise ValueError(f"trial={trial}; must be a trial that {tracking_uri} knows")
    return str(found[0].info.run_id)


def read_run(tracking_uri: str, run_id: str) -> tuple[str, list[Row]]:
    """Return a trial's record as text, and its rows as far as MLflow keeps them."""
    client = MlflowClient(tracking_uri)
    run = client.get_run(run_id)
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{CONFIG_ARTIFACT}")
    rows: dict[int, Row] = {}
    for name in run.data.metrics.keys() - _FINAL_METRICS:
        for point in client.get_metric_history(run_id, name):
            rows.setdefault(point.step, {"step": point.step})[name] = point.value
    return text, [rows[step] for step in sorted(rows)]


def _metrics_of(row: Row) -> list[Metric]:
    step, time_ms = row["step"], row["time_ms"]
    return [
        Metric(name, value, time_ms, step)
        for name, value in row.items()
        if isinstance(value, int | float) and name not in ("step", "time_ms")
    ]
