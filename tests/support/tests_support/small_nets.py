"""Small nets of each family, with every kind of layer and more than one block, and noise."""

import torch

from trainer.model_config import ModelConfig
from trainer.models import build_model

# A new family is missing here.
SMALL = {
    "waveform": {"channels": (1, 4, 8), "blocks": (1, 2), "factors": (4, 2)},
    "spectrogram": {"channels": (1, 4, 8), "blocks": (1, 2), "factors": (4, 2)},
    "frames": {"channels": (16, 8), "blocks": (1, 2), "factors": ()},
}

OTHERWISE = {"kernel_size": 5, "dilation": 3, "activation": "snake"}
"""What every family can also have, at other values than a small net's."""


def small_config(family, output="direct", **changes):
    """Return the fields of a small net, with kernel 3."""
    fields = {"kernel_size": 3, **SMALL[family], **changes}
    return ModelConfig(family=family, output=output, **fields)


def build(family, output="direct", *, seed=0, **changes):
    """Return a small net with the first weights of a seed."""
    torch.manual_seed(seed)
    return build_model(small_config(family, output, **changes))


def noise(clips, samples, level=0.3, seed=1):
    """Return clips [clip, sample] of white noise."""
    return level * torch.randn(clips, samples, generator=torch.Generator().manual_seed(seed))
