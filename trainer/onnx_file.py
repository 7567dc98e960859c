"""A net as an ONNX file, checked against PyTorch. Needs what the extra `export` installs."""

import importlib.util
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from trainer.config import SAMPLE_RATE_HZ
from trainer.net import Net
from trainer.real_spectrogram import RealSpectrogramNet
from trainer.spectral_net import N_FFT, SpectralNet

LARGEST_DIFFERENCE = 1e-4
"""Between ONNX Runtime and PyTorch, on clips in [-1, 1]."""

INPUT, OUTPUT = "clips", "restored"

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_TRACED_SAMPLES = 8192


class NoOnnx(Exception):
    """A net cannot be had as ONNX here; the text is the reason."""


def write_onnx(net: Net, path: Path) -> float:
    """Write a net that is on the CPU, and return by how much it differs from PyTorch at most.

    The file takes any number of clips, of any length that the net takes. Raises NoOnnx, and leaves
    no file, when packages are missing, the net cannot be translated or comes out different.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise NoOnnx(f"it needs {', '.join(missing)} (pip install {' '.join(_PACKAGES)})")
    try:
        _translate(net, path)
        return _check(net, path)
    except NoOnnx:
        path.unlink(missing_ok=True)
        raise


def _translate(net: Net, path: Path) -> None:
    traced = RealSpectrogramNet(net) if isinstance(net, SpectralNet) else net
    multiple = net.length_multiple
    length = torch.export.Dim("samples") if multiple == 1 else multiple * torch.export.Dim("n")
    try:
        with _quiet():
            program = torch.onnx.export(
                traced.eval(),
                (torch.zeros(2, _whole(_TRACED_SAMPLES, net)),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch"), 1: length},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise NoOnnx(f"torch.onnx cannot translate this net: {_first_line(error)}") from error
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    program.save(str(path), external_data=False)


def _check(net: Net, path: Path) -> float:
    """Return the largest difference, at other numbers of clips and lengths than the traced ones."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # which its builds for Windows would send
    largest = 0.0
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for clips, samples in ((1, N_FFT), (1, 30_000), (3, 20_001)):
            signals = _signals(clips, _whole(samples, net))
            restored = session.run([OUTPUT], {INPUT: signals.numpy()})[0]
            with torch.inference_mode():
                difference = (net(signals) - torch.from_numpy(restored)).abs().max()
            largest = max(largest, difference.item())
    except Exception as error:  # noqa: BLE001 - what ONNX Runtime raises has no other base
        raise NoOnnx(f"ONNX Runtime cannot run this net: {_first_line(error)}") from error
    if not largest <= LARGEST_DIFFERENCE:
        raise NoOnnx(f"it differs from PyTorch by {largest:.1e}, more than {LARGEST_DIFFERENCE:g}")
    return largest


def _whole(samples: int, net: Net) -> int:
    """Return the next length, at least two multiples, that a net takes."""
    multiple = net.length_multiple
    return max(2, -(-samples // multiple)) * multiple


def _signals(clips: int, samples: int) -> Tensor:
    """Return clips [clip, sample] in [-1, 1]: noise, then chords with less and less of it.

    Never without: RealSpectrogramNet says why.
    """
    time_s = torch.arange(samples) / SAMPLE_RATE_HZ
    chord = sum(torch.sin(2 * math.pi * hz * time_s) for hz in (110.0, 277.0, 415.0)) / 3
    noise = 2 * torch.rand(clips, samples, generator=torch.Generator().manual_seed(0)) - 1
    noise_shares = torch.tensor([[1.0], [0.1], [0.01]])[:clips]
    return noise_shares * noise + (1 - noise_shares) * chord


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what torch.onnx tells of packages it could use and deprecated calls it makes."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
