"""A trainer of known curves that trains nothing, and imports little: its actors are many."""

import hashlib
import json
import math
import random
import time
from pathlib import Path

from ray import tune

ENVIRONMENT = {
    "device_name": "none",
    "device_kind": "simulated",
    "python": "3.11.0",
    "versions": {"torch": "2.11.0", "torchaudio": "2.11.0", "numpy": "2.0.0"},
}
OTHERS = (
    *("mel", "lsd_db", "si_sdr_db", "l1"),
    *("train_loss", "train_stft", "gradient_stft", "lr", "adamw_lr"),
    *("grad_norm_median", "grad_norm_p99", "clipped_share"),
    *("steps_per_second", "data_wait_share"),
)
"""Numbers of a row beside validation, memory and seconds, as a real journal has them."""
NUMBERS = len(OTHERS) + 3
"""What MLflow gets of a row."""


def validation(fields, step, *, name=""):
    """Return a trial's validation at a step: a bowl around the log's best rates, falling with the
    steps, and a little noise that follows from the trial's name."""
    rates = (("optimizer.lr", 5e-3), ("optimizer.adamw_lr", 5e-4))
    off = [math.log10(fields[rate] / best) for rate, best in rates]
    off.append(5 * (fields["optimizer.momentum"] - 0.93))
    noise = random.Random(f"{name}{step}").gauss(0, 0.005)
    return 1.0 + 0.2 * sum(x * x for x in off) + 0.5 * math.exp(-3 * step / fields["steps"]) + noise


def results(assignment, trials):
    """Yield what a worker reports of a trial, from where it runs to its ending. Its record is
    written into a folder below `trials`, as the driver reads it."""
    name, fields = assignment["fingerprint"], assignment["fields"]
    folder = Path(trials) / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"fingerprint": name, "config": fields}, indent=2)
    )
    yield {"started": ENVIRONMENT}
    every = fields["report_every"]
    for step in range(every, fields["steps"] + 1, every):
        value = validation(fields, step, name=name)
        row = {"step": step, "stft": value, **dict.fromkeys(OTHERS, value)}
        row |= {"train_losses": [value] * every, "seconds": step / 10, "peak_memory_bytes": 0}
        row["time_ms"] = time.time_ns() // 1_000_000
        yield {"step": step, "stft": value, "row": row, "peak_bytes": 0}
    yield {"ending": {"outcome": "finished", "step": fields["steps"]}}


def build_simulated(trials, *, step_s):
    """Return a function that Tune makes actors of; each step takes them so long."""

    def simulate(assignment):
        for result in results(assignment, trials):
            if "row" in result:
                time.sleep(step_s * assignment["fields"]["report_every"])
            tune.report(result)

    return simulate


def pace(assignment):
    """Return what time passes between reports where none does: each trial has its own pace."""
    digest = hashlib.sha256(assignment["fingerprint"].encode()).digest()
    return 0.9 + 0.2 * digest[0] / 255
