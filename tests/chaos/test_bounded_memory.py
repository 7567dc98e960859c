"""A thousand trivial trials through all that a driver keeps of them, without Ray."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

THOUSAND = """
import json, sys
from pathlib import Path
from types import SimpleNamespace

import cluster.environment
cluster.environment.apply()

import psutil
from tests_support.fake_sweep import NeverStops, plan
from tests_support.machines import cpu_capacity
from sweeps.engine.disk import Disk
from sweeps.engine.placer import Placer
from sweeps.engine.progress import ProgressTable
from sweeps.engine.recorder import Recorder
from sweeps.engine.search import StudySearcher
from sweeps.engine.stopping import SweepStopper
from sweeps.engine.root import Root
from sweeps.engine.store import keep_run_id, open_optuna, open_study
from sweeps.engine.study import SweepStudy
from sweeps.engine.study_records import read_records
from sweeps.engine.sync import track
from sweeps.engine.tracking import Tracking
from trainer.config import METRIC

TRIALS = int(sys.argv[2])
root = Root(path=Path(sys.argv[1]))
facts = {"do_nothing": {METRIC: 1.5}, "data_fingerprint": "d" * 16, "size": "demo"}
study = open_study(open_optuna(root.study_url), "trivial", "0123abcd", lambda: facts)
sweep = SweepStudy(study, plan(trials=TRIALS))
tracked = track(study, root=root, tracking_uri=root.tracking_uri, commit="c0ffee")
tracking = Tracking(tracked, on_run=lambda trial, run: keep_run_id(study, trial, run))
stopper = SweepStopper(last_step=80, report_every=10)
watcher = ProgressTable(1.5, show=lambda line: None)
disk = Disk(root, keep_bytes=1e9, trial_bytes=10**6, standings=lambda: [])
capacity = cpu_capacity()
placer = Placer(capacity, disk, look=lambda: capacity.placement.machines)
recorder = Recorder(sweep, stopper, tracking, watcher, root=root, placer=placer)
searcher = StudySearcher(sweep, recorder, placer, NeverStops())
process = psutil.Process()
seen = {}
for number in range(1, TRIALS + 1):
    config = searcher.suggest(str(number))
    (root.trials / config["fingerprint"]).mkdir(parents=True)
    trial = SimpleNamespace(config=config, last_result={}, error_file=None)
    for step in range(10, 81, 10):
        row = {"step": step, METRIC: 1.0 + number / TRIALS + 1 / step, "seconds": 1.0,
               "peak_memory_bytes": 10**9, "time_ms": 1000 * number + step,
               "train_loss": 1.0, "train_losses": [1.0] * 10}
        result = {"step": step, METRIC: row[METRIC], "row": row, "peak_bytes": 10**9}
        trial.last_result = result
        action = stopper.on_trial_result(None, trial, result)
        recorder.on_trial_result(0, [], trial, result)
        if action == "STOP":
            break
    else:
        trial.last_result = {"ending": {"outcome": "finished", "step": 80}}
    recorder.on_trial_complete(0, [], trial)
    if number in (TRIALS // 10, TRIALS):
        seen[number] = process.memory_info().rss
missing = tracking.close(read_records(study), timeout_s=300.0)
print(json.dumps({"rss": seen, "missing": missing, "ended": len(read_records(study))}))
"""


@pytest.mark.chaos
@pytest.mark.timeout(1500)
def test_a_driver_grows_by_less_than_50_mb_from_trial_100_to_1000(tmp_path):
    support = Path(__file__).parents[1] / "support"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(support)!r})\n" + THOUSAND]
        + [str(tmp_path), "1000"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    early, late = (told["rss"][number] / 1e6 for number in ("100", "1000"))
    print(f"resident: {early:.0f} MB at trial 100, {late:.0f} MB at trial 1000")
    assert told["ended"] == 1000
    assert told["missing"] == 0
    assert late - early < 50
