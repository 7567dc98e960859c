"""Trials on one worker of limited address space: `python starved_trials.py FOLDER RECORDINGS`.

Prints a line of JSON for each: how it ended, on which process, and what that then held.
"""

import json
import resource
import sys
from pathlib import Path

import psutil
import ray
from ray import tune
from ray.tune.trainable.function_trainable import wrap_function

from sweeps.engine.trial import TrialContext, run_trial
from trainer.sizes import SIZES

BYTES_MORE = 1_500_000_000
"""Of address space than the worker has when it is set up."""


def fields(recordings, cache, *, batch_size):
    """Return a trial's fields: a tiny net whose memory grows with the batch."""
    return {
        **SIZES["demo"],
        "data.path": recordings,
        "data.cache": cache,
        "data.clip_samples": 16_384,
        "data.batch_size": batch_size,
        "model.channels": (8,),
        "model.blocks": (1,),
        "validation.clips": 2,
        "validation.clip_samples": 8192,
        "steps": 2,
        "report_every": 1,
        "device": "cpu",
    }


def build(folder, recordings):
    """Return the trainable: trial 0 and 2 are small, trial 1 does not fit."""
    context = TrialContext(storage=str(folder), sweep="starved", commit="test")
    cache = str(folder / "cache")

    def train_one(config):
        batch_size = 1024 if config["number"] == 1 else 2
        chosen = fields(str(recordings), cache, batch_size=batch_size)
        assignment = {"fingerprint": f"{config['number']:016x}", "fields": chosen}
        run_trial({**assignment, "resources": {"CPU": 1}, "share_bytes": None}, context)

    class Starved(wrap_function(train_one)):
        def setup(self, config):
            limit = psutil.Process().memory_info().vms + BYTES_MORE
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            super().setup(config)

    return Starved


class Look(tune.Callback):
    """Looks at the worker when a trial has told its end."""

    def on_trial_result(self, iteration, trials, trial, result, **info):
        if "ending" in result:
            held = psutil.Process(result["pid"]).memory_info().rss
            status = Path(f"/proc/{result['pid']}/status").read_text().splitlines()
            (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
            ending = result["ending"]
            told = {"outcome": ending["outcome"], "error": ending["error"], "pid": result["pid"]}
            sys.stdout.write(json.dumps({**told, "held": held, "peak": 1024 * int(peak)}) + "\n")


def main(folder, recordings):
    """Run the three trials in turn."""
    ray.init(log_to_driver=False, logging_level="ERROR")
    tune.Tuner(
        tune.with_resources(build(folder, recordings), {"cpu": 1}),
        param_space={"number": tune.grid_search([0, 1, 2])},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(folder / "tune"), callbacks=[Look()], verbose=0
        ),
    ).fit()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
