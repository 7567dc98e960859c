"""What every net is to those who train, restore with, measure and export it."""

import abc

from torch import nn


class Net(nn.Module, abc.ABC):
    """Clips [batch, sample] at 44.1 kHz to clips of the same shape."""

    length_multiple: int
    """A clip's number of samples must be a multiple of it."""
    grid_samples: int
    """Moving the input by a multiple of it moves the output likewise, but for its edges."""
    reach_samples: int
    """An output sample depends on no input that is farther away than this."""

    @abc.abstractmethod
    def edges(self) -> tuple[nn.Linear, nn.Linear]:
        """Return the layers that touch audio: the first and the last."""


def start_at_zero(layer: nn.Linear) -> None:
    """Make a layer give nothing, whatever it gets, until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
