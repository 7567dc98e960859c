"""What is kept of a trial on disk: `last.pt` to go on from, `best.safetensors` to use.

Both are written under a temporary name and put in place whole. Nothing is unpickled on load.
"""

import os
import pickle
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.journal import Row

LAST = "last.pt"
BEST = "best.safetensors"

_KEYS = {
    "step",
    "fingerprint",
    "model",
    "optimizer",
    "loss",
    "rng",
    "journal",
    "interval",
    "seconds",
}

State = dict[str, object]


def save_last(folder: Path, state: State) -> None:
    """Replace the checkpoint that training resumes from."""
    assert set(state) == _KEYS
    temporary = folder / (LAST + ".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / LAST)


def load_last(path: Path, *, fingerprint: str) -> State:
    """Read a checkpoint, from its file or the folder it lies in, onto the CPU.

    Raises ValueError naming the file when it is damaged, foreign, or another trial's.
    """
    file = path / LAST if path.is_dir() else path
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise ValueError(f"checkpoint={file}; must be a whole checkpoint of unshift") from error
    if not isinstance(state, dict) or set(state) != _KEYS:
        raise ValueError(f"checkpoint={file}; must be a checkpoint written by unshift")
    if state["fingerprint"] != fingerprint:
        raise ValueError(
            f"checkpoint={file} of trial {state['fingerprint']}; must be of trial {fingerprint}: "
            "the configuration, the data or the trainer's revision differ"
        )
    return state


def read_checkpoint_journal(path: Path, *, fingerprint: str) -> list[Row]:
    """Return the journal's rows up to a checkpoint."""
    return cast("list[Row]", load_last(path, fingerprint=fingerprint)["journal"])


def save_best(folder: Path, weights: dict[str, Tensor], *, step: int) -> None:
    """Replace the weights that validated best."""
    temporary = folder / (BEST + ".tmp")
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_file(tensors, temporary, metadata={"step": str(step)})
    os.replace(temporary, folder / BEST)


def load_best(folder: Path) -> dict[str, Tensor]:
    """Return the weights that validated best, on the CPU."""
    return load_file(folder / BEST)
