"""What is kept of a trial on disk: `last.pt` to go on from, `previous.pt`, the one before, for the
case that the last is damaged, and `best.safetensors` to use.

Each is put in place whole, and at any moment a whole checkpoint bears one of the two names. Nothing
is unpickled on load.
"""

import hashlib
import json
import logging
import zipfile
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from trainer.journal import Row, is_row
from trainer.unreadable import UNREADABLE
from trainer.whole_file import replace_whole

LAST = "last.pt"
PREVIOUS = "previous.pt"
BEST = "best.safetensors"

_SUM = "sha256"
"""Of the best weights, beside them in their file."""

_KINDS: dict[str, type | tuple[type, ...]] = {
    "step": int,
    "fingerprint": str,
    "model": dict,
    "optimizer": dict,
    "loss": dict,
    "rng": dict,
    "journal": list,
    "interval": dict,
    "seconds": (int, float),
}

State = dict[str, object]

_log = logging.getLogger(__name__)


def has_checkpoint(folder: Path) -> bool:
    """Return whether there is something in a folder that training could go on from."""
    return any((folder / name).is_file() for name in (LAST, PREVIOUS))


def save_last(folder: Path, state: State) -> None:
    """Replace the checkpoint that training resumes from, and keep the one before.

    Raises OSError where it cannot be written: those on disk are as they were then.
    """
    assert state.keys() == _KINDS.keys()
    replace_whole(
        folder / LAST, lambda file: torch.save(state, file), keep_old_as=folder / PREVIOUS
    )


def find_checkpoint(path: Path, *, fingerprint: str) -> tuple[Path, State]:
    """Return the checkpoint to go on from, and its file: `path`, or in that folder the last or,
    where that is not usable, the one before, with a warning.

    Tensors are on the CPU. Raises ValueError naming every file that is damaged, foreign or another
    trial's.
    """
    if not path.is_dir():
        return path, _load(path, fingerprint)
    last, previous = path / LAST, path / PREVIOUS
    try:
        return last, _load(last, fingerprint)
    except ValueError as error:
        if not previous.is_file():
            raise
        refused = str(error)
    try:
        state = _load(previous, fingerprint)
    except ValueError as error:
        raise ValueError(f"{refused}; and {error}" if last.is_file() else str(error)) from error
    if last.is_file():  # not so where a kill came between its two renamings
        _log.warning("%s; going on from %s, step %s", refused, previous, state["step"])
    return previous, state


def load_last(path: Path, *, fingerprint: str) -> State:
    """Return the checkpoint that `find_checkpoint` finds."""
    return find_checkpoint(path, fingerprint=fingerprint)[1]


def find_usable(folder: Path, *, fingerprint: str) -> tuple[Path, list[Row]] | None:
    """Return the checkpoint to go on from with its journal's rows, or None where there is none, or
    none that is usable: then with a warning naming each."""
    if not has_checkpoint(folder):
        return None
    try:
        file, state = find_checkpoint(folder, fingerprint=fingerprint)
    except ValueError as error:
        _log.warning("%s; starting over from step 0", error)
        return None
    return file, cast("list[Row]", state["journal"])


def forget_unused(folder: Path, *, used: Path | None) -> None:
    """Delete the checkpoints that a trial does not go on from, and with none `used`, as it starts
    over, its best weights too.

    A damaged one that stayed would be moved to where the good one is.
    """
    if used == folder / LAST:
        return
    unused = {folder / LAST, folder / PREVIOUS} - {used}
    for file in unused if used is not None else unused | {folder / BEST}:
        file.unlink(missing_ok=True)


def save_best(folder: Path, weights: dict[str, Tensor], *, step: int) -> None:
    """Replace the weights that validated best. Raises OSError where they cannot be written."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    metadata = {"step": str(step), _SUM: _hash_tensors(tensors)}
    content = to_safetensors(tensors, metadata=metadata)
    replace_whole(folder / BEST, lambda file: file.write(content))


def load_best(folder: Path) -> dict[str, Tensor]:
    """Return the weights that validated best, on the CPU.

    Raises ValueError where a bit of them is not as it was written; files of before sums were kept
    are taken as they are. Raises OSError or SafetensorError where they cannot be read.
    """
    path = folder / BEST
    with safe_open(path, "pt") as file:
        told = (file.metadata() or {}).get(_SUM)
        weights = {name: file.get_tensor(name) for name in file.keys()}
    if told is not None and told != _hash_tensors(weights):
        raise ValueError(f"weights={path}; must be as they were written: the file is damaged")
    return weights


def _hash_tensors(tensors: dict[str, Tensor]) -> str:
    """Return SHA-256 over names in order, each with its type, its shape and its bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _load(file: Path, fingerprint: str) -> State:
    try:
        _check_sums(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ValueError(f"checkpoint={file}; must be a whole checkpoint of unshift") from error
    if not _is_state(state):
        raise ValueError(f"checkpoint={file}; must be a checkpoint written by unshift")
    if state["fingerprint"] != fingerprint:
        raise ValueError(
            f"checkpoint={file} of trial {state['fingerprint']}; must be of trial {fingerprint}: "
            "the configuration, the data or the trainer's revision differ"
        )
    return cast("State", state)


def _check_sums(file: Path) -> None:
    """Raise an error unless every byte is as it was written: torch does not look at the sums."""
    size = file.stat().st_size
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():  # nothing that grows when it is read
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
                raise zipfile.BadZipFile(f"{entry.filename} is not of torch")
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} is damaged")


def _is_state(state: object) -> bool:
    if not isinstance(state, dict) or state.keys() != _KINDS.keys():
        return False
    kinds = all(isinstance(state[name], kind) for name, kind in _KINDS.items())
    return kinds and state["step"] >= 0 and all(is_row(row) for row in state["journal"])
