"""A sweep's driver without Ray: its parts as sweeps/engine/tuning.py puts them together, and in the
place of Tune a loop that trains one trial at a time, by a fake trainer of known curves."""

import math
import threading
from types import SimpleNamespace

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from tests_support.fake_sweep import NeverStops, plan
from tests_support.machines import cpu_capacity, machines

from sweeps.engine.disk import Disk
from sweeps.engine.outcomes import rank
from sweeps.engine.placer import Placer
from sweeps.engine.recorder import Recorder
from sweeps.engine.search import StudySearcher
from sweeps.engine.stopping import SweepStopper
from sweeps.engine.store import keep_run_id, open_optuna, open_study
from sweeps.engine.study import SweepStudy
from sweeps.engine.study_records import read_records, read_standings
from sweeps.engine.sync import track
from sweeps.engine.tracking import Tracking
from trainer.config import METRIC, TrainConfig
from trainer.journal import Journal, read_journal
from trainer.record import FILE_NAME, Record
from trainer.sizes import SIZES

STEPS, EVERY = 80, 10
SETTING = "0123abcd"
DATA = "d" * 16
FACTS = {"do_nothing": {METRIC: 1.5}, "data_fingerprint": DATA, "size": "demo"}
DIVERGES_ABOVE = 0.02
"""The learning rate."""


class Killed(Exception):
    """The driver died."""


class Silent:
    """Watches and says nothing."""

    def row(self, record, row):
        pass

    def ended(self, record):
        pass


class FakeDriver:
    """A driver on a host, from its first look at the study on."""

    def __init__(self, study_url, tracking_uri, root, name, *, trials):
        self._storage = open_optuna(study_url, for_driver=True)
        self.study = study = open_study(self._storage, name, SETTING, lambda: FACTS)
        self._root = root
        self._sweep = SweepStudy(study, plan(trials=trials, data_fingerprint=DATA))
        self._stopper = SweepStopper(last_step=STEPS, report_every=EVERY)
        self._stopper.remember(self._sweep.curves(), stops=self._sweep.stops())
        self._tracking = Tracking(
            track(study, root=root, tracking_uri=tracking_uri, commit="c0ffee"),
            on_run=lambda trial, run: keep_run_id(study, trial, run),
        )
        disk = Disk(
            root, keep_bytes=None, trial_bytes=0, standings=lambda: read_standings(study_url)
        )
        capacity = cpu_capacity()
        base = TrainConfig.from_fields(SIZES["demo"])
        capacity.needs.note_peak(base, 10**9)  # to be estimated, it would be rehearsed
        placer = Placer(capacity, disk, look=machines)
        self._recorder = Recorder(
            self._sweep, self._stopper, self._tracking, Silent(), root=root, placer=placer
        )
        self._recorder.catch_up(self._sweep.settled())
        self._searcher = StudySearcher(self._sweep, self._recorder, placer, NeverStops())

    def run(self, *, reports=math.inf):
        """Train until there are enough trials. Raises Killed once it has heard so many reports, and
        a worker has written one more."""
        self._reports_left = reports
        while (assignment := self._searcher.suggest("tune's own")) != Searcher.FINISHED:
            self._train(assignment)

    def close(self):
        """End as a driver does; return of how many trials MLflow lacks something."""
        missing = self._tracking.close(rank(read_records(self.study)), timeout_s=60)
        self._storage._backend.engine.dispose()
        return missing

    def throw_away(self):
        """End as if killed: what MLflow was not told yet is lost with the driver."""
        self._tracking.close([], timeout_s=0)
        for thread in threading.enumerate():
            if thread.name == "mlflow-writer":
                thread.join(60)  # the call that is under way
        self._storage._backend.engine.dispose()

    def _train(self, assignment):
        trial = SimpleNamespace(config=assignment, last_result={}, error_file=None)
        for result in train(self._root, assignment):
            if "row" in result:
                if self._reports_left == 0:
                    raise Killed
                self._reports_left -= 1
            trial.last_result = result
            action = self._stopper.on_trial_result(None, trial, result)
            self._recorder.on_trial_result(0, [], trial, result)
            if "ending" in result or action == TrialScheduler.STOP:
                self._recorder.on_trial_complete(0, [], trial)
                return


def train(root, assignment):
    """Yield what a worker reports of a trial, which goes on from what is in the storage root."""
    name, config = assignment["fingerprint"], TrainConfig.from_fields(assignment["fields"])
    rate = config.optimizer.lr
    with root.hold(name, timeout_s=0):
        folder = root.fetch_to_train(name)
        folder.mkdir(parents=True, exist_ok=True)
        record = Record(config=config, data_fingerprint=DATA, commit="c0ffee")
        (folder / FILE_NAME).write_text(record.to_text())
        journal = Journal(folder, read_journal(folder))
        for row in journal.rows:
            yield told(row)
        for step in range(EVERY * (len(journal.rows) + 1), STEPS + 1, EVERY):
            if rate > DIVERGES_ABOVE and step > EVERY:
                yield {"ending": {"outcome": "diverged", "step": step, "error": "loss is nan"}}
                return
            journal.append(report(rate, step))
            root.share(name)
            yield told(journal.rows[-1])
        yield {"ending": {"outcome": "finished", "step": STEPS}}


def report(rate, step):
    """Return the row of a trial's journal at a step."""
    value = 1.0 + abs(math.log10(rate) + 2.5) / 3 + 10 / (step + 20)
    fixed = {"seconds": step / 8, "peak_memory_bytes": 1000 + step, "time_ms": 10_000 + step}
    return {"step": step, METRIC: value, "train_losses": [value] * EVERY, **fixed}


def told(row):
    """Return a report as Tune has it."""
    return {"step": row["step"], METRIC: row[METRIC], "row": row}
