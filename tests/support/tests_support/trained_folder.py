"""Folders that hold a net as training leaves it, without any training."""

import torch

from trainer.checkpoint import save_best
from trainer.config import TrainConfig
from trainer.models import build_model
from trainer.record import FILE_NAME, Record
from trainer.trained import read_trained

TINY = {
    "frames": {
        "model.family": "frames",
        "model.channels": (8,),
        "model.blocks": (1,),
        "model.factors": (),
        "model.kernel_size": 3,
        "model.output": "direct",
    },
    "waveform": {
        "model.family": "waveform",
        "model.channels": (1, 4, 8),
        "model.blocks": (1, 1),
        "model.factors": (4, 2),
        "model.kernel_size": 3,
        "model.output": "direct",
    },
    "spectrogram": {
        "model.family": "spectrogram",
        "model.channels": (1, 4, 8),
        "model.blocks": (1, 1),
        "model.factors": (4, 2),
        "model.kernel_size": 3,
        "model.output": "direct",
    },
}
"""Fields of the smallest net of each family that still has every kind of layer."""


def tiny_config(family, **changes):
    """Return the configuration of a net that has every kind of layer and nothing more."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return TrainConfig.from_fields(TINY[family] | named)


def write_trained(folder, config, *, data_fingerprint="0" * 16, seed=0):
    """Write a record and random weights, and return them as they are found again."""
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(config=config, data_fingerprint=data_fingerprint, commit="test")
    (folder / FILE_NAME).write_text(record.to_text())
    save_best(folder, random_net(config.model, seed=seed).state_dict(), step=1)
    return read_trained(folder)


def random_net(config, *, seed=0):
    """Return a net in eval mode that changes its input, even where it would start as nothing."""
    torch.manual_seed(seed)
    net = build_model(config).eval()
    if config.output == "difference":
        torch.nn.init.normal_(net.edges()[1].weight, std=0.05)
    return net
