"""A trial's training gone through with tensors that have shapes and no values.

It takes a second and no memory, whatever the size: torch's fake tensors. What runs is training's
own code (learner.py, evaluate.py), so a new net, loss or optimizer needs nothing here.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.config import TrainConfig
from trainer.damage import damage_clips, low_pass_targets
from trainer.evaluate import ValidationSet, evaluate
from trainer.learner import Learner, Pass
from trainer.models import build_model

_LARGEST_CONSTANT_BYTES = 2**24
_NOWHERE = {"device": torch.device("meta")}


class Rehearsal:
    """A configuration's learner and clips, all without values. Uncompiled: there is no code to
    compile for.

    Fake are the weights and the clips, and so all that is computed with them. What is computed of
    shifts and constants alone is real: it decides shapes, and may be kept for real training.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        *,
        observer: TorchDispatchMode | None = None,
    ) -> None:
        """Set all up; an `observer` is shown every operation of the rehearsal."""
        data, held_out = config.data, config.validation
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with fake, device:
            net = build_model(config.model)
            plain = dataclasses.replace(config, compile=False)
            self.learner = Learner(net, plain, with_weights=False)
            self.clips = torch.empty(data.batch_size, data.clip_samples)
            self._held_out = torch.empty(held_out.clips, held_out.clip_samples)
        self._shifts = _in_turn(config.damage.shifts, data.batch_size)
        self._held_out_shifts = _in_turn(held_out.shifts, held_out.clips)
        self._observer = observer
        self._pretence = _Pretence(fake)

    def try_out(self) -> Pass:
        """Do the first half of a step: damage, net and loss."""
        with self._watched():
            return self.learner.try_out(self.clips, self._shifts)

    def judge(self) -> Pass:
        """Do the first half without the damage."""
        with self._watched():
            return self.learner.judge(self.clips, self.clips)

    def descend(self, tried: Pass) -> None:
        """Do the second half: gradients and update."""
        with self._watched():
            self.learner.descend(tried).item()

    def build_validation(self) -> ValidationSet:
        """Return the held-out clips, damaged."""
        clips, shifts = self._held_out, self._held_out_shifts
        with self._watched():
            return ValidationSet(
                damaged=damage_clips(clips, shifts),
                target=low_pass_targets(clips, shifts),
                shifts=shifts,
            )

    def validate(self, validation: ValidationSet) -> None:
        """Score what the net makes of the held-out clips."""
        with self._watched():
            self.learner.net.eval()
            evaluate(self.learner.restore, validation)
            self.learner.net.train()

    @torch.no_grad()
    def restore(self) -> Tensor:
        """Apply the net to the batch's clips."""
        with self._watched():
            return self.learner.restore(self.clips)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        with self._observer or contextlib.nullcontext(), self._pretence:
            yield


class _Pretence(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps up what fake tensors alone do not.

    Code that asks for their values is answered: each number is 1, and no two are equal. Large
    constants, such as the indices that gradients of views need, are fake too.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake = fake

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if args and isinstance(args[0], FakeTensor):
            if func is torch.ops.aten._local_scalar_dense.default:
                return torch.ones((), dtype=args[0].dtype).item()
            if func is torch.ops.aten.equal.default:
                return False
        is_constant = not types and "device" in kwargs
        if is_constant and func(*args, **{**kwargs, **_NOWHERE}).nbytes > _LARGEST_CONSTANT_BYTES:
            with self._fake:
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def _in_turn(shifts: tuple[int, ...], clips: int) -> Tensor:
    """Return a shift for each of some clips, [clip]."""
    return torch.tensor([shifts[i % len(shifts)] for i in range(clips)])
