"""A training step by its parts, for the net of each size, at any batch: where the time goes."""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from trainer.config import TrainConfig
from trainer.damage import damage_clips, low_pass_targets
from trainer.device import resolve_device
from trainer.losses.spectral import stft_distance
from trainer.models import build_model, count_parameters
from trainer.optimizers import build_optimizer
from trainer.sizes import SIZES


def main() -> None:
    """Print the seconds of each part and its share of the step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, help="clips a step; else what the size says")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for size, fields in SIZES.items():
        config = TrainConfig.from_fields(fields)
        batch = given.batch or config.data.batch_size
        parts = measure(config, batch, given.repeats)
        total = sum(parts.values())
        shares = "  ".join(f"{n} {s:.3f} s ({s / total:.0%})" for n, s in parts.items())
        parameters = count_parameters(build_model(config.model)) / 1e6
        clip = config.data.clip_samples
        print(f"{size} ({parameters:.1f} M, {batch} x {clip}): {total:.3f} s a step: {shares}")


def measure(config: TrainConfig, batch: int, repeats: int) -> dict[str, float]:
    """Return the best seconds of each part over some repeats, after one to warm up."""
    device = resolve_device(config.device)
    model = build_model(config.model).to(device)
    optimizer = build_optimizer(model, config.optimizer, steps=config.steps)
    clips = 0.1 * torch.randn(batch, config.data.clip_samples, device=device)
    # Every third, so that a small batch has up-shifts, whose targets are filtered, and others.
    chosen = 3 * torch.arange(batch) % len(config.damage.shifts)
    shifts = torch.tensor(config.damage.shifts)[chosen]
    best: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Tensor]) -> Tensor:
        started = time.perf_counter()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
        best[name] = min(seconds, best.get(name, seconds))
        return result

    for repeat in range(repeats + 1):
        if repeat == 1:
            best.clear()
        damaged = timed("damage", lambda: damage_clips(clips, shifts))
        target = timed("low-pass", lambda: low_pass_targets(clips, shifts))
        estimate = timed("net", lambda damaged=damaged: model(damaged))
        loss = timed("loss", lambda e=estimate, t=target: stft_distance(e, t).mean())
        timed("backward", lambda loss=loss: torch.autograd.backward(loss) or loss)
        timed("optimizer", optimizer.step)
    return best


if __name__ == "__main__":
    main()
