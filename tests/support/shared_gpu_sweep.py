"""A sweep on a GPU that only Ray believes in: what memory it has, and what trials take, is told.

At their first reports two trials wait for each other: they share the GPU, or come to no end. One
of them outgrows its share at its third report, and the other waits at its fourth until that one is
back with more: the third trial begins when that is known. It runs out of memory at its third, once.
"""

import os
import time
from pathlib import Path

import torch

from sweeps.engine.gpu_memory import CONTEXT_BYTES, GpuMemory
from sweeps.engine.run import Sweep, main

GPU_BYTES = 16 * CONTEXT_BYTES
"""A tiny net and CUDA's own, with the margin, take an eighth of it."""
FIRST, HUNGRY, UNLUCKY = RATES = (1e-3, 2e-3, 3e-3)

meeting = Path(os.environ.get("UNSHIFT_MEETING", "."))
"""A folder that all workers see."""


def suggest(trial):
    return {"optimizer.lr": trial.suggest_categorical("optimizer.lr", list(RATES))}


def read_peak(row):
    """Return what the trial of a row has taken."""
    rate, number = row["lr"], row["step"] // 3
    with (meeting / f"readings-{rate:g}").open("a") as file:
        file.write(f"{row['step']}\n")
    told = f"{os.environ.get('OMP_NUM_THREADS')} {torch.get_num_threads()}\n"
    (meeting / f"threads-{rate:g}").write_text(told)
    if number == 1 and rate in (FIRST, HUNGRY):
        wait_for(FIRST, HUNGRY, readings=1)
    if number == 4 and rate == FIRST:
        wait_for(HUNGRY, readings=4)
    if rate == UNLUCKY and number == 3 and not (meeting / "has run out").exists():
        (meeting / "has run out").touch()
        raise torch.OutOfMemoryError("CUDA out of memory")
    return CONTEXT_BYTES if rate == HUNGRY and number >= 3 else CONTEXT_BYTES // 10


def wait_for(*rates, readings):
    for _ in range(2400):
        if all(count_readings(rate) >= readings for rate in rates):
            return
        time.sleep(0.1)
    raise TimeoutError("the other trial has not come as far: the GPU is not shared")


def count_readings(rate):
    file = meeting / f"readings-{rate:g}"
    return len(file.read_text().split()) if file.exists() else 0


SWEEP = Sweep(
    name="shared_gpu",
    space=suggest,
    known_points=[{"optimizer.lr": rate} for rate in RATES],
    stops_early=False,
    gpu_memory=GpuMemory(total_bytes=lambda: GPU_BYTES, peak_bytes=read_peak),
)

if __name__ == "__main__":
    main(SWEEP)
