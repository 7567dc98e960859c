"""A tiny net with and without torch.compile: its first step cold and from the cache, later steps.

Each is a process of its own. The first step includes all that comes before it pays: tracing,
compiling or reading what was compiled; ratios are to the net as it is.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from trainer.compilation import compile_net
from trainer.model_config import ModelConfig
from trainer.models import build_model

U_NET = {"channels": (1, 8, 16), "blocks": (1, 1), "factors": (4, 4), "kernel_size": 7}
NETS = {
    "waveform": U_NET,
    "spectrogram": U_NET,
    "frames": {"channels": (32,), "blocks": (1,), "factors": (), "kernel_size": 7},
}


def main() -> None:
    """Print seconds and ratios for each family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", nargs="*", choices=NETS, default=list(NETS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(*given.child, given.repeats)))
        return
    for family in given.family:
        with tempfile.TemporaryDirectory() as cache:
            first, plain = run(family, "", given.repeats)
            cold, compiled = run(family, cache, given.repeats)
            warm, _ = run(family, cache, given.repeats)
        print(
            f"{family}: first step {first:.2f} s plain, {cold:.1f} s compiled cold, {warm:.1f} s "
            f"from the cache ({warm / cold:.0%}); later steps {1e3 * plain:.1f} ms plain, "
            f"{1e3 * compiled:.1f} ms compiled ({compiled / plain:.0%})"
        )


def run(family: str, cache: str, repeats: int) -> tuple[float, float]:
    """Return the seconds of the first step, and of the fastest later one, in a new process."""
    command = [sys.executable, __file__, "--child", family, cache, "--repeats", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, later = json.loads(done.stdout.splitlines()[-1])
    return first, later


def measure(family: str, cache: str, repeats: int) -> tuple[float, float]:
    """Time steps here; without a cache, those of the net as it is."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = build_model(ModelConfig(family=family, **NETS[family]))
    clips = 0.1 * torch.randn(4, 8192)
    started = time.perf_counter()
    forward = compile_net(net, cache=Path(cache)) if cache else net
    step(forward, clips)
    first = time.perf_counter() - started
    return first, min(step(forward, clips) for _ in range(repeats))


def step(forward: Callable[[Tensor], Tensor], clips: Tensor) -> float:
    """Return the seconds of one way there and back."""
    started = time.perf_counter()
    forward(clips).square().mean().backward()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
