"""Small seeded signals for tests of losses."""

import torch


def noise(clips, samples, level=0.1, seed=0):
    """Return white noise [clip, sample]."""
    return level * torch.randn(clips, samples, generator=torch.Generator().manual_seed(seed))
