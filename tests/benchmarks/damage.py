"""Damage of the log's 136 one-second clips: batched by shift, and clip by clip, in one run.

torchaudio's own `pitch_shift` is not among the ways: between rates with a small common divisor its
resampling kernel alone takes gigabytes, and ten clips were killed for memory on a 24 GB machine.
"""

import resource
import subprocess
import sys
import time

import torch

from trainer.config import ALL_SHIFTS, SAMPLE_RATE_HZ
from trainer.damage import damage_clips

CLIPS = 136
WAYS = {"batched by shift": CLIPS, "clip by clip": 1}
"""Clips at once, for each way."""


def main() -> None:
    """Run every way in a process of its own; print seconds, growth of peak memory and a ratio."""
    measured = {}
    for way in WAYS:
        command = [sys.executable, __file__, way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured[way], peak_mb = map(float, done.stdout.split())
        print(f"{way:<16} {measured[way]:6.2f} s  {peak_mb:6.0f} MB")
    batched, one_by_one = measured.values()
    print(f"clip by clip takes {one_by_one / batched:.1f} times the seconds")


def measure(at_once: int) -> None:
    """Print the seconds and the growth of peak resident memory in MB."""
    clips = 0.1 * torch.randn(CLIPS, SAMPLE_RATE_HZ)
    shifts = torch.tensor(ALL_SHIFTS).repeat(CLIPS)[:CLIPS]
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    for first in range(0, CLIPS, at_once):
        damage_clips(clips[first : first + at_once], shifts[first : first + at_once])
    seconds = time.perf_counter() - started
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    print(seconds, grown_kb / 1000)


if __name__ == "__main__":
    measure(WAYS[sys.argv[1]]) if len(sys.argv) > 1 else main()
