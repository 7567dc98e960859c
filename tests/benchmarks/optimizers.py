"""One step of each optimizer, side by side: CPU seconds on one thread, and the ratio to AdamW."""

import argparse
import time
import typing

import torch

from trainer.model_config import ModelConfig
from trainer.models import build_model
from trainer.optimizer_config import OptimizerConfig, OptimizerName
from trainer.optimizers import build_optimizer

U_NET = {"channels": (1, 16, 32, 64), "blocks": (2, 2, 2), "factors": (4, 4, 4), "kernel_size": 7}
NETS = {
    "frames, 160 wide, 4 blocks (demo)": ModelConfig(family="frames"),
    "waveform, 1-16-32-64": ModelConfig(family="waveform", **U_NET),
}


def main() -> None:
    """Print a line for each net."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    for label, model in NETS.items():
        seconds = {
            name: measure(model, OptimizerConfig(name=name), repeats)
            for name in typing.get_args(OptimizerName)
        }
        told = (f"{n} {s:.3f} s ({s / seconds['adamw']:.0f}x)" for n, s in seconds.items())
        print(f"{label}: {', '.join(told)}")


def measure(model: ModelConfig, config: OptimizerConfig, repeats: int) -> float:
    """Return the CPU seconds of the fastest step after the first."""
    net = build_model(model)
    optimizer = build_optimizer(net, config, steps=100)
    taken = []
    for _ in range(1 + repeats):
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        started = time.process_time()
        optimizer.step()
        taken.append(time.process_time() - started)
    return min(taken[1:])


if __name__ == "__main__":
    main()
