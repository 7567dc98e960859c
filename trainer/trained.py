"""A trained net, as a trial's folder and an exported one hold it: its record and its weights."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from trainer.checkpoint import BEST, load_best
from trainer.models import build_model
from trainer.net import Net
from trainer.record import Record, read_record
from trainer.spectral_net import N_FFT


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trial's record, and the folder with the weights that validated best."""

    record: Record
    folder: Path

    def load(self, device: torch.device) -> Net:
        """Return the net in eval mode.

        Raises ValueError when the weights are damaged, not finite, or those of another net.
        """
        path = self.folder / BEST
        net = build_model(self.record.config.model)
        try:
            net.load_state_dict(load_best(self.folder))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise ValueError(f"weights={path}; must be the record's net's: {reason}") from error
        for name, value in net.state_dict().items():
            if not value.isfinite().all():
                raise ValueError(f"weights={path}; must be finite: {name} has NaN or infinities")
        return net.to(device).eval()


def read_trained(folder: Path) -> Trained:
    """Find a trained net in a folder. Raises ValueError when it has no record or no weights."""
    record = read_record(folder)
    if not (folder / BEST).is_file():
        raise ValueError(
            f"weights={folder / BEST}; must exist: this trial never validated, or a sweep has "
            "collected its weights (--keep-gb)"
        )
    return Trained(record=record, folder=folder)


@torch.inference_mode()
def restore_clips(net: Net, clips: Tensor) -> Tensor:
    """Return what a net makes of clips [clip, sample] at 44.1 kHz, whatever their length.

    What the net cannot take as it is has zeros added after it, and cut off again.
    """
    samples = clips.shape[-1]
    multiple = net.length_multiple
    padded = -(-max(samples, N_FFT) // multiple) * multiple
    restored: Tensor = net(F.pad(clips, (0, padded - samples)))
    return restored[..., :samples].float()
