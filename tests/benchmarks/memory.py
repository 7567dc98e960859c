"""Estimated and measured peak memory of training, for fourteen shapes of all three nets.

Each number is from a process of its own. `whole` is the process's largest resident size, as the
journal records it; `above`, what of it comes on top of the process before training. `tensors` is
that too, but with a C library that is told to give back all that is freed (glibc's mmap threshold
at its least), which is slow: so nothing is resident but what is alive.

On `whole` and `tensors` there is a promise. `above` differs by some 50 MB between runs of one and
the same shape, as malloc happens to find room: a lot for the smallest nets.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch

from trainer.config import TrainConfig
from trainer.data import open_data
from trainer.device import resolve_device
from trainer.memory import RECORDINGS, estimate_memory, measure_process
from trainer.models import build_model, count_parameters
from trainer.train import train

PROMISED, FARTHEST = ("whole", "tensors"), 0.2
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}

COMMON = {"validation.clips": 8, "optimizer.name": "adamw", "optimizer.lr": 1e-4}
MUON = {"optimizer.name": "muon_adamw"}


def waveform(channels, blocks, factors, kernel_size, batch_size, clip_samples):
    """Return the fields of a U-Net and its batch."""
    return {
        "model.family": "waveform",
        "model.channels": channels,
        "model.blocks": blocks,
        "model.factors": factors,
        "model.kernel_size": kernel_size,
        "data.batch_size": batch_size,
        "data.clip_samples": clip_samples,
    }


def frames(channels, blocks, kernel_size, batch_size, clip_samples):
    """Return the fields of a frames net and its batch."""
    net = waveform(channels, blocks, [], kernel_size, batch_size, clip_samples)
    return net | {"model.family": "frames"}


def spectrogram(channels, blocks, factors, batch_size, clip_samples):
    """Return the fields of a U-Net in two dimensions, with kernel 7, and its batch."""
    net = waveform(channels, blocks, factors, 7, batch_size, clip_samples)
    return net | {"model.family": "spectrogram"}


LOG_CHANNELS, OUTPUT29_CHANNELS = [1, 8, 64, 256, 512], [1, 8, 32, 128, 256, 512]

SHAPES = [
    waveform([1, 4, 8], [1, 1], [4, 2], 3, 2, 8192),
    waveform([1, 16, 32, 64], [2, 2, 2], [4, 4, 4], 7, 8, 16384) | MUON,
    waveform([1, 32, 64], [3, 3], [4, 4], 21, 4, 32768) | {"optimizer.clip_norm": 1.0},
    waveform([1, 8, 64, 128, 256], [4, 4, 4, 4], [8, 8, 2, 2], 41, 4, 32256)
    | {"validation.clip_samples": 32256},
    waveform(OUTPUT29_CHANNELS, [4, 4, 4, 4, 4], [8, 4, 4, 2, 2], 41, 1, 16384) | MUON,
    waveform(LOG_CHANNELS, [4, 4, 4, 4], [8, 8, 4, 2], 41, 4, 49152) | MUON,
    frames([16], [1], 3, 2, 8192),
    frames([160], [4], 7, 4, 32768) | MUON | {"model.output": "difference"},
    frames([160], [4], 7, 64, 32768) | MUON,
    frames([256, 512], [4, 4], 31, 16, 49152),
    frames([1024], [6], 7, 8, 65024) | MUON,
    spectrogram([1, 8, 16, 32], [1, 1, 1], [4, 2, 2], 8, 32768),
    spectrogram([1, 32, 64, 128, 256], [2, 2, 2, 2], [4, 2, 2, 2], 2, 49152) | MUON,
    spectrogram([1, 32, 64, 128, 256], [2, 2, 2, 2], [4, 2, 2, 2], 8, 32768)
    | {"model.activation": "snake"},
]


def main() -> None:
    """Print a table of the shapes; fail when one is off by more than is promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", type=int, nargs="*", default=range(len(SHAPES)))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        torch.set_num_threads(given.threads)
        work, fields = given.child
        print(json.dumps(CHILDREN[work](TrainConfig.from_fields(json.loads(fields)))))
        return
    print(f"{'':<58}{'whole':^23}  {'above':^23}  {'tensors':^23}")
    print(f"{'MB':<58}" + "  ".join([f"{'est.':>7} {'meas.':>7} {'ratio':>7}"] * 3))
    with tempfile.TemporaryDirectory() as cache:
        open_data("demo", cache)  # so that none of the children has to decode
        worst = max(compare(SHAPES[i], cache, given) for i in given.shape)
    print(f"farthest of {' and '.join(PROMISED)} from 1: {worst:.0%}")
    sys.exit(worst > FARTHEST)


def compare(shape: dict[str, object], cache: str, given: argparse.Namespace) -> float:
    """Print the row of a shape; return how far its farthest ratio is from 1."""
    here = {"data.cache": cache, "device": given.device}
    length = {"steps": given.steps, "report_every": given.steps}
    fields = COMMON | here | length | shape
    estimate = run_child("estimate", fields, given, {})
    usual = run_child("measure", fields, given, {})
    exact = run_child("measure", fields, given, GIVES_BACK)
    pairs = {
        "whole": (estimate["peak"], usual["peak"]),
        "above": (estimate["peak"] - estimate["process"], usual["peak"] - usual["process"]),
        "tensors": (estimate["tensors"], exact["peak"] - exact["process"] - estimate["recordings"]),
    }
    cells = "  ".join(f"{e / 1e6:7.0f} {m / 1e6:7.0f} {e / m:7.2f}" for e, m in pairs.values())
    print(f"{name(fields):<58}{cells}", flush=True)
    return max(abs(estimated / measured - 1) for estimated, measured in map(pairs.get, PROMISED))


def name(fields: dict[str, object]) -> str:
    """Return a shape in a few words."""
    config = TrainConfig.from_fields(fields)
    with torch.device("meta"):
        millions = count_parameters(build_model(config.model)) / 1e6
    width = ",".join(map(str, config.model.channels))
    batch = f"{config.data.batch_size}x{config.data.clip_samples}"
    return f"{config.model.family} {width} {millions:.1f} M {batch} {config.optimizer.name}"


def run_child(work: str, fields: object, given: argparse.Namespace, variables: object):
    """Do one thing in a process of its own and return what it found."""
    child = ["--child", work, json.dumps(fields), "--threads", str(given.threads)]
    command = [sys.executable, __file__, *child]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def estimate(config: TrainConfig) -> dict[str, int]:
    """Return what is estimated."""
    data = open_data(config.data.path, config.data.cache)
    device = resolve_device(config.device)
    process = measure_process(config) if device.type != "cuda" else 0
    found = estimate_memory(config, data, device, process_bytes=process)
    return {
        "peak": found.peak_bytes,
        "process": process,
        "tensors": found.tensor_bytes,
        "recordings": found.parts.get(RECORDINGS, 0),
    }


def measure(config: TrainConfig) -> dict[str, int]:
    """Train, and return what the journal records, and the process before it."""
    open_data(config.data.path, config.data.cache)
    process = measure_process(config) if resolve_device(config.device).type != "cuda" else 0
    rows = []
    train(config, report=rows.append)
    return {"peak": max(row["peak_memory_bytes"] for row in rows), "process": process}


CHILDREN = {"estimate": estimate, "measure": measure}

if __name__ == "__main__":
    main()
