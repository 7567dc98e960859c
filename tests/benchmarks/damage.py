"""Damage: this project's, by small fractions, beside torchaudio's `pitch_shift`, in one run.

Each in a process of its own, on the same one-second clips; prints seconds, peak memory, ratios.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torchaudio.functional as AF
from torch import Tensor

from trainer.config import ALL_SHIFTS, SAMPLE_RATE_HZ
from trainer.damage import damage_clips

WAYS = {"unshift": 136, "unshift small": 10, "torchaudio": 10}
"""Clips for each way: torchaudio's takes too much memory for the log's 136."""


def main() -> None:
    """Run every way and print one line each."""
    print(f"{'way':<14} {'clips':>5} {'seconds':>8} {'peak MB':>8}")
    measured = {}
    for way, clips in WAYS.items():
        command = [sys.executable, __file__, way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, peak_mb = map(float, done.stdout.split())
        measured[way] = seconds, peak_mb
        print(f"{way:<14} {clips:>5} {seconds:>8.2f} {peak_mb:>8.0f}")
    ours, theirs = measured["unshift small"], measured["torchaudio"]
    ratios = (
        f"{theirs[0] / ours[0]:.0f} times the seconds, {theirs[1] / ours[1]:.1f} times the peak"
    )
    print(f"torchaudio on the same {WAYS['torchaudio']} clips: {ratios}")


def measure(way: str) -> None:
    """Print the seconds and the growth of peak resident memory of one way."""
    clips = 0.1 * torch.randn(WAYS[way], SAMPLE_RATE_HZ)
    shifts = torch.tensor(ALL_SHIFTS).repeat(14)[: len(clips)]
    change: Callable[[Tensor, Tensor], Tensor] = damage_clips
    if way == "torchaudio":
        change = _with_torchaudio
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    change(clips, shifts)
    seconds = time.perf_counter() - started
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(seconds, grown_kb / 1000)


def _with_torchaudio(clips: Tensor, shifts: Tensor) -> Tensor:
    made = []
    for clip, semitones in zip(clips, shifts.tolist(), strict=True):
        up = AF.pitch_shift(clip, SAMPLE_RATE_HZ, semitones)
        made.append(AF.pitch_shift(up, SAMPLE_RATE_HZ, -semitones))
    return torch.stack(made)


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
