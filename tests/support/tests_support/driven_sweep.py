"""A real sweep of tiny trials, driven by `python sweeps/lr_momentum.py` in a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from mlflow.tracking import MlflowClient

from sweeps.engine.leaderboard import read_leaderboard
from sweeps.engine.store import open_optuna

ROOT = Path(__file__).parents[3]
TINY_TRIALS = (
    "model.channels=[8]",
    "model.blocks=[1]",
    "data.batch_size=2",
    "data.clip_samples=4096",
    "validation.clips=2",
    "validation.clip_samples=8192",
)


@dataclass(kw_only=True)
class DrivenSweep:
    """A sweep on a storage root of its own; every start of it is the same command.

    In a `with` block, at whose end no driver runs on.
    """

    storage: Path
    recordings: Path
    environment: dict[str, str]
    """The variables that lead to the Ray head."""
    trials: int = 8
    steps: int = 24
    more: tuple[str, ...] = ("--concurrency", "1")
    script: str = "sweeps/lr_momentum.py"
    before: tuple[str, ...] = ()
    """Words of Python before the script: what hands it over."""
    after: tuple[str, ...] = ()
    """Words between the script and its arguments."""
    study_url: str = ""
    """Empty: the storage root's own."""
    drivers: list[subprocess.Popen] = field(default_factory=list)
    """All that were started."""

    def start(self):
        """Start a driver, whose output goes to a file; return its process."""
        command = [sys.executable, *self.before, self.script, *self.after]
        command += ["--data", self.recordings]
        if "--storage" not in self.more:
            command += ["--storage", self.storage]
        command += ["--size", "demo", "--trials", self.trials]
        command += ["--max-steps", self.steps, *self.more]
        command += [part for setting in TINY_TRIALS for part in ("--set", setting)]
        variables = {**os.environ, **self.environment, "OMP_NUM_THREADS": "1"}
        with self.log.open("w") as log:
            driver = subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env=variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.drivers.append(driver)
        return driver

    def run(self, *, expect=0, timeout_s=600):
        """Run a driver to its end; return what it printed."""
        status = self.start().wait(timeout_s)
        assert status == expect, self.printed()
        return self.printed()

    def __enter__(self):
        """Begin with no driver."""
        return self

    def __exit__(self, *_):
        """End all drivers that still run."""
        for driver in self.drivers:
            driver.kill()
            driver.wait()

    @property
    def name(self):
        """Return the sweep's name."""
        return Path(self.script).stem.removesuffix("_sweep")

    @property
    def log(self):
        """Return the file with what the last driver printed."""
        return self.storage.with_name(f"{self.storage.name}-{self.name}.log")

    def printed(self):
        """Return what the last driver has printed so far."""
        return self.log.read_text()

    def study(self):
        """Return the sweep's study."""
        storage = open_optuna(self.study_url or f"sqlite:///{self.storage / 'optuna.db'}")
        return optuna.load_study(study_name=self.name, storage=storage)

    def leaderboard(self):
        """Return what of the leaderboard does not depend on the machine's speed."""
        told = ("fingerprint", "outcome", "step", "value", "last_value", "params", "restarts")
        trials = read_leaderboard(self.study())["trials"]
        return [{name: trial[name] for name in told} for trial in trials]

    def journal(self, fingerprint):
        """Return the rows of a trial's journal as lines."""
        path = self.storage / "trials" / fingerprint / "metrics.jsonl"
        return path.read_text().splitlines() if path.is_file() else []

    def runs(self, kind="trial", uri=None):
        """Return the runs in MLflow, a list: none may be there twice."""
        client = MlflowClient(uri or f"sqlite:///{self.storage / 'mlflow.db'}")
        experiment = client.get_experiment_by_name(self.name)
        return list(client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'"))

    def metric_steps(self, run, name="stft", uri=None):
        """Return the steps of the points of a run's metric, in order."""
        client = MlflowClient(uri or f"sqlite:///{self.storage / 'mlflow.db'}")
        return sorted(point.step for point in client.get_metric_history(run.info.run_id, name))


def assert_nothing_lost_or_doubled(sweep, uri=None):
    """Compare study, journals and MLflow: each trial once, each report once."""
    board = sweep.leaderboard()
    names = [trial["fingerprint"] for trial in board]
    assert len(set(names)) == len(names) == sweep.trials
    assert "RUNNING" not in {trial.state.name for trial in sweep.study().get_trials()}
    runs = sweep.runs(uri=uri)
    assert sorted(run.data.tags["fingerprint"] for run in runs) == sorted(names)
    assert len(sweep.runs("sweep", uri=uri)) == 1
    outcomes = {trial["fingerprint"]: trial["outcome"] for trial in board}
    for run in runs:
        name = run.data.tags["fingerprint"]
        steps = [json.loads(line)["step"] for line in sweep.journal(name)]
        every = max(1, min(25, sweep.steps // 8))
        assert steps == list(range(every, steps[-1] + 1, every))
        assert sweep.metric_steps(run, uri=uri) == steps
        assert run.data.tags["outcome"] == outcomes[name]
