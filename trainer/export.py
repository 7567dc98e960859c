"""A trained net as a folder to hand on: its record, its weights and, where it can be had, ONNX."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.checkpoint import BEST as WEIGHTS
from trainer.config import METRIC
from trainer.journal import read_journal
from trainer.models import count_parameters
from trainer.onnx_file import INPUT, OUTPUT, NoOnnx, write_onnx
from trainer.record import FILE_NAME as RECORD
from trainer.spectral_net import N_FFT
from trainer.trained import Trained

ONNX, README = "model.onnx", "README.md"

_NAMES = (RECORD, WEIGHTS, ONNX, README)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    files: tuple[Path, ...]
    difference: float | None
    """The largest between ONNX and PyTorch; none where there is no ONNX."""
    why_no_onnx: str = ""


def export(trained: Trained, out: Path, *, force: bool = False) -> Exported:
    """Write a trained net into a folder, which is there whole or not at all.

    With `force` it replaces an earlier export. Raises ValueError when anything else is in the
    folder, or the weights are damaged.
    """
    _check_free(out, force=force)
    net = trained.load(torch.device("cpu"))
    difference, why_not = None, ""
    with _put_in_place(out) as folder:
        for name in (RECORD, WEIGHTS):
            shutil.copyfile(trained.folder / name, folder / name)
        try:
            difference = write_onnx(net, folder / ONNX)
        except NoOnnx as reason:
            why_not = str(reason)
        text = _about(trained, count_parameters(net))
        if difference is not None:
            text += _about_onnx(trained)
        (folder / README).write_text(text, encoding="utf-8")
    files = tuple(out / name for name in _NAMES if (out / name).is_file())
    return Exported(files=files, difference=difference, why_no_onnx=why_not)


def _check_free(out: Path, *, force: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"out={out}; must be a folder, and is a file")
    there = sorted(path.name for path in out.iterdir())
    foreign = [name for name in there if name not in _NAMES]
    if foreign:
        raise ValueError(f"out={out}; must be new, empty or an export: {foreign[0]} is in it")
    if there and not force:
        raise ValueError(f"out={out}; must be new or empty, or replaced with --force")


@contextmanager
def _put_in_place(out: Path) -> Iterator[Path]:
    """Give a folder to write to, whose files are moved to `out` in the end."""
    beside = out if out.is_dir() else out.parent
    beside.mkdir(parents=True, exist_ok=True)
    folder = beside / f".{out.name}-{uuid.uuid4().hex}.partial"
    folder.mkdir()
    try:
        yield folder
        if not out.is_dir():
            os.replace(folder, out)
            return
        for name in _NAMES:
            (out / name).unlink(missing_ok=True)
        for name in reversed(_NAMES):  # the record last: without it, a folder is no net
            if (folder / name).is_file():
                os.replace(folder / name, out / name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _about(trained: Trained, parameters: int) -> str:
    """Return what the folder is, for whoever gets it."""
    record = trained.record
    best = min(read_journal(trained.folder), key=lambda row: float(row[METRIC]), default=None)
    scored = f"Its validation {METRIC} is {best[METRIC]:.4f} (lower is better). " if best else ""
    return f"""\
# A net of unshift: trial {record.fingerprint}

It undoes what pitch shifting does to audio. A {record.config.model.family} net of \
{parameters / 1e6:.1f} M parameters, trained on the recordings {record.data_fingerprint}.
{scored}It takes and gives 44.1 kHz mono audio in [-1, 1].

- `{RECORD}`: the trial's record, all that training it again needs
- `{WEIGHTS}`: its weights

With unshift, on recordings of any length, rate and channel count:

```sh
unshift restore --trial THIS_FOLDER IN OUT
```
"""


def _about_onnx(trained: Trained) -> str:
    model = trained.record.config.model
    lengths = f"a multiple of {model.length_multiple}"
    if model.family != "waveform":
        lengths = f"more than {N_FFT // 2}"
    return f"""
`{ONNX}` is the net alone: float32 [clip, sample], any number of clips, {lengths} samples long.

```python
import onnxruntime

session = onnxruntime.InferenceSession("{ONNX}")
restored = session.run(["{OUTPUT}"], {{"{INPUT}": clips}})[0]
```
"""
