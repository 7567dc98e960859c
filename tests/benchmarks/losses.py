"""What each term of the loss costs: bytes kept for the way back, and seconds, for the log's clips.

    PYTHONPATH=tests/support python tests/benchmarks/losses.py

Bytes are counted once a storage, weights left out, on tensors without values (the tests hold them
to be those of real ones): `whole` for the batch at once, `some` for as many clips as the terms look
at together. `plain` is DAC's own encoder as its package has it, measured on one real clip and
multiplied. Seconds are for a clip there and back, one after the other, on real tensors.
"""

import argparse
import time
import warnings

import torch
from tests_support.saved_bytes import SavedBytes
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.loss_config import LossConfig
from trainer.losses.codec_features import relative_l1
from trainer.losses.terms import build_terms, foreign_parameters

CPU = torch.device("cpu")
CODECS = [(blocks, kind) for blocks in (1, 4) for kind in ("units", "blocks")]


def configurations():
    """Yield a name and a loss of one term, or of two that share a pass."""
    for name in ("stft", "mel", "l1", "cdpam"):
        yield name, {name: 1.0}
    for codec in ("dac", "encodec"):
        for blocks, kind in CODECS:
            fields = {f"{codec}_blocks": blocks, f"{codec}_features": kind}
            yield f"{codec}, {blocks} blocks, {kind}", {codec: 1.0, **fields}
    yield "adversarial", {"adversarial": 1.0}
    yield "adversarial, feature_matching", {"adversarial": 1.0, "feature_matching": 1.0}


def saved_gigabytes(config, clips, samples):
    """Return what one look at some clips keeps, computed without values."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, CPU:
        (group,) = build_terms(config, CPU, with_weights=False)
        estimate = torch.empty(clips, samples).requires_grad_()
        target = torch.empty(clips, samples)
    net = getattr(group, "net", None) or group.distance
    weights = net.parameters() if isinstance(net, torch.nn.Module) else []
    with SavedBytes(weights).counting() as saved:
        group(estimate, target)
    return saved.total / 1e9


def seconds_a_clip(group, samples, repeats=2):
    """Return the least time of some that one clip takes, there and back."""
    estimate, target = 0.1 * torch.randn(1, samples), 0.1 * torch.randn(1, samples)
    times = []
    for _ in range(repeats):
        leaf = estimate.clone().requires_grad_()
        begin = time.perf_counter()
        sum(value.sum() for value in group(leaf, target).values()).backward()
        times.append(time.perf_counter() - begin)
    return min(times)


def plain_gigabytes(kind, samples):
    """Return what DAC's own encoder keeps for features of all its blocks of one real clip."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dac.model.dac import Encoder

        encoder = Encoder(64, [2, 4, 8, 8], 1024)
    encoder.requires_grad_(False)
    blocks = encoder.block[1:5]
    looked_at = [u for b in blocks for u in b.block[:3]] if kind == "units" else [*blocks]
    made = []
    for module in looked_at:
        module.register_forward_hook(lambda _, __, out: made.append(out))
    encoder(0.1 * torch.randn(1, 1, samples))
    aim, made[:] = list(made), []
    known = [*encoder.parameters(), *aim]
    with SavedBytes(known).counting() as saved:
        encoder((0.1 * torch.randn(1, 1, samples)).requires_grad_())
        distance = relative_l1(made, aim)
    return distance, saved.total / 1e9


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--clips-at-once", type=int, default=4)
    parser.add_argument("--samples", type=int, default=49_152)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(f"{'term':34}{'M parameters':>14}{'GB whole':>10}{'GB some':>9}{'s a clip':>10}")
    for name, fields in configurations():
        config = LossConfig(**{"stft": None, **fields})
        groups = build_terms(config, CPU, with_weights=False)
        parameters = sum(foreign_parameters(groups).values()) / 1e6
        sizes = [
            saved_gigabytes(config, clips, chosen.samples)
            for clips in (chosen.batch, chosen.clips_at_once)
        ]
        seconds = seconds_a_clip(groups[0], chosen.samples)
        print(
            f"{name:34}{parameters:14.2f}{sizes[0]:10.2f}{sizes[1]:9.2f}{seconds:10.2f}", flush=True
        )
    for kind in ("units", "blocks"):
        _, size = plain_gigabytes(kind, chosen.samples)
        print(f"{'plain dac, 4 blocks, ' + kind:48}{size * chosen.batch:10.2f}")


if __name__ == "__main__":
    main()
