"""What can be known of a configuration without training it, for people and programs to read."""

import dataclasses
from dataclasses import dataclass

import torch

from trainer.config import TrainConfig
from trainer.cost import (
    LossCost,
    checkpoint_bytes,
    cost_of_loss,
    multiply_adds_per_second,
    parameters_by_part,
    receptive_field_ms,
)
from trainer.data import DataSet
from trainer.device import resolve_device
from trainer.losses.foreign import absent_terms, pin_weights
from trainer.memory import MemoryEstimate, estimate_memory, measure_process
from trainer.models import build_model
from trainer.timing import Timing, time_steps
from trainer.training_run import open_data_of


@dataclass(frozen=True, kw_only=True)
class Description:
    """A configuration on its recordings and a device."""

    config: TrainConfig
    fingerprint: str
    device: str
    parameters_by_part: dict[str, int]
    receptive_field_ms: float
    multiply_adds_per_second: int
    """Of audio, in the forward pass."""
    loss: dict[str, LossCost]
    """By part: terms, and what a discriminator takes to learn."""
    memory: MemoryEstimate
    checkpoint_bytes: int
    steps_per_epoch: float
    absent: dict[str, str]
    """What to do about each term of the loss whose net is not here: it can be described only."""
    timing: Timing | None
    """None: not asked for."""

    @property
    def parameters(self) -> int:
        """Return the number of trained values."""
        return sum(self.parameters_by_part.values())

    @property
    def memory_of_net(self) -> dict[str, int]:
        """Return what the net's parts keep for the way back at the peak, largest first."""
        parts = self.memory.parts.items()
        return {name: size for name, size in parts if name in self.parameters_by_part}

    def to_json(self) -> dict[str, object]:
        """Return the content of `unshift describe --json`; null is what was not measured."""
        timing = self.timing
        return {
            "config": self.config.to_fields(),
            "fingerprint": self.fingerprint,
            "device": self.device,
            "parameters": self.parameters,
            "parameters_by_part": self.parameters_by_part,
            "receptive_field_ms": self.receptive_field_ms,
            "multiply_adds_per_second": self.multiply_adds_per_second,
            "loss": {part: dataclasses.asdict(cost) for part, cost in self.loss.items()},
            "absent_terms": self.absent,
            "peak_memory_bytes": self.memory.peak_bytes,
            "tensor_memory_bytes": self.memory.tensor_bytes,
            "memory_by_part": dict(self.memory.parts),
            "checkpoint_bytes": self.checkpoint_bytes,
            "steps_per_epoch": self.steps_per_epoch,
            "seconds_per_step": timing and timing.seconds_per_step,
            "data_wait_share": timing and timing.data_wait_share,
            "validation_seconds": timing and timing.validation_seconds,
            "measured_peak_memory_bytes": timing and timing.peak_memory_bytes,
        }


def describe(config: TrainConfig, *, with_timing: bool) -> Description:
    """Describe a configuration; `with_timing` trains some steps of it here.

    The nets of a loss need not be here unless it is timed; without them the fingerprint is not
    that of a trial. Raises ValueError for bad recordings and devices.
    """
    device, data = resolve_device(config.device), open_data_of(config)
    absent = {k: v for k, v in absent_terms(config.loss).items() if k in config.loss.weights}
    if not absent:
        config = dataclasses.replace(config, loss=pin_weights(config.loss))
    # In this order: what is resident grows with all that is done.
    process_bytes = measure_process(config) if device.type != "cuda" else 0
    timing = time_steps(config) if with_timing else None
    with torch.device("meta"):
        net = build_model(config.model)
    return Description(
        config=config,
        fingerprint=config.fingerprint(data.fingerprint),
        device=str(device),
        parameters_by_part=parameters_by_part(net),
        receptive_field_ms=receptive_field_ms(net),
        multiply_adds_per_second=multiply_adds_per_second(config),
        loss=cost_of_loss(config),
        memory=estimate_memory(config, data, device, process_bytes=process_bytes),
        checkpoint_bytes=checkpoint_bytes(config),
        steps_per_epoch=_steps_per_epoch(config, data),
        absent=absent,
        timing=timing,
    )


def _steps_per_epoch(config: TrainConfig, data: DataSet) -> float:
    """Return the steps in which as much audio is drawn as there is to train on."""
    samples = sum(recording.samples for recording in data.training)
    return samples / (config.data.batch_size * config.data.clip_samples)
