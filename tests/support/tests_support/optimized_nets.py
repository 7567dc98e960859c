"""Small nets with optimizers, and gradients that need no loss."""

import itertools
import re
import typing

import torch

from trainer.model_config import ModelConfig
from trainer.models import build_model
from trainer.optimizer_config import OptimizerConfig
from trainer.optimizers import build_optimizer

NAMES = typing.get_args(typing.get_type_hints(OptimizerConfig)["name"])
FAMILIES = typing.get_args(typing.get_type_hints(ModelConfig)["family"])
STEPS = 20
"""For which schedules are built."""
KINDS = list(itertools.product(FAMILIES, NAMES))

U_NET = {"channels": (1, 4, 8), "blocks": (1, 1), "factors": (4, 2)}
SMALL = {
    "waveform": U_NET,
    "spectrogram": U_NET,
    "frames": {"channels": (16, 8), "blocks": (1, 1), "factors": ()},
}
BLOCK = r"(encode|decode)\.\d+"
BETWEEN_EDGES_OF_A_U_NET = (
    rf"stages\.\d+\.({BLOCK}\.(widen|narrow)|join)\.weight|stages\.[1-9]\.(down|up)\.mix\.weight"
)
MATRICES = {  # by the names of design.md's words: what mixes channels between the edges
    "waveform": BETWEEN_EDGES_OF_A_U_NET,
    "spectrogram": BETWEEN_EDGES_OF_A_U_NET,
    "frames": r"body\.\d+\.(widen|narrow)\.weight|body\.[1-9]\d*\.weight",
}


def build(family, **settings):
    torch.manual_seed(0)
    model = build_model(ModelConfig(family=family, kernel_size=3, **SMALL[family]))
    return model, build_optimizer(model, OptimizerConfig(**settings), steps=STEPS)


def set_gradients(model, *, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def moved(model, before):
    return {name: p.detach() - before[name] for name, p in model.named_parameters()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def matrix_names(family, model):
    """Names of the 2-D weights between the edges; norms' vectors in `body` do not match by rank."""
    named = model.named_parameters()
    return {n for n, p in named if p.ndim == 2 and re.fullmatch(MATRICES[family], n)}


def step_with(model, optimizer, seeds):
    for seed in seeds:
        set_gradients(model, seed=seed)
        optimizer.step()
