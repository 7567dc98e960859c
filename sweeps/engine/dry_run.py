"""`--dry-run`: what a sweep would take, from ten steps on the machines that are there."""

import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import ray
import torch
from ray.exceptions import RayTaskError

from sweeps.engine.forecast import Expectation, expect_stopping
from sweeps.engine.machine_memory import total_bytes
from sweeps.engine.setting import Setting
from trainer.config import TrainConfig
from trainer.cost import checkpoint_bytes
from trainer.device import resolve_device
from trainer.timing import Timing, time_steps

_TIMED_AT_ONCE = 8
"""So many trials side by side show how much they slow each other down."""
_START_S = 15.0
"""A head, a job, and what a worker imports."""
_JOURNAL_BYTES_PER_STEP = 100

Machine = tuple[str, str, int]
"""Host name, device, and the device's memory in bytes."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What was measured, and what follows from it."""

    setting: Setting
    recorded: int
    """Trials that the study has already."""
    expectation: Expectation | None
    """None: there is nothing left to do."""
    timings: Sequence[tuple[Machine, Timing]]
    """Of trials that trained at the same time."""

    @property
    def seconds(self) -> float:
        """Return how long the sweep is expected to take: as long as its slowest machine lets it."""
        if self.expectation is None:
            return _START_S
        steps = self.expectation.duration_steps
        reports = steps / self.setting.base.report_every
        timings = [timing for _, timing in self.timings]
        a_step = max(timing.seconds_per_step for timing in timings)
        a_report = max(timing.validation_seconds for timing in timings)
        return _START_S + steps * a_step + reports * a_report

    def __str__(self) -> str:
        lines = [self._tell_trials(), self._tell_time(), self._tell_memory(), self._tell_disk()]
        return "\n".join(["", "Dry run: only ten steps were trained, to measure them.", *lines])

    def _tell_trials(self) -> str:
        known = f", {self.recorded} of them recorded already" if self.recorded else ""
        text = f"trials  {self.setting.options.trials}{known}"
        if self.expectation is None:
            return f"{text}: nothing is left to train"
        reaching = self.expectation.reaching
        last = max(reaching)
        rungs = [f"step {step}: {count:.1f}" for step, count in reaching.items() if step < last]
        return f"{text}; expected to reach {', '.join([*rungs, f'the end: {reaching[last]:.1f}'])}"

    def _tell_time(self) -> str:
        if self.expectation is None:
            return "time    none"
        timings = [timing for _, timing in self.timings]
        steps = sorted(timing.seconds_per_step for timing in timings)
        spread = f"{steps[0]:.3g}" if len(steps) == 1 else f"{steps[0]:.3g} to {steps[-1]:.3g}"
        validation = max(timing.validation_seconds for timing in timings)
        devices = ", ".join(sorted({f"{host} ({device})" for (host, device, _), _ in self.timings}))
        return (
            f"time    about {_duration(self.seconds)}: {self.expectation.steps:.0f} steps of "
            f"{spread} s, a validation of {validation:.3g} s every {self.setting.base.report_every}"
            f", on {devices}"
        )

    def _tell_memory(self) -> str:
        most = max(timing.peak_memory_bytes for _, timing in self.timings)
        at_once = self._trials_on_one_device()
        total = min(size for (_, _, size), _ in self.timings)
        text = (
            f"memory  {_bytes(most)} a trial, {_bytes(at_once * most)} for {at_once} at once, of "
            f"{_bytes(total)}"
        )
        return text + (": TOO MUCH, lower --concurrency" if at_once * most > total else "")

    def _tell_disk(self) -> str:
        config, trials = self.setting.base, self.setting.options.trials - self.recorded
        each = checkpoint_bytes(config) + _JOURNAL_BYTES_PER_STEP * config.steps
        free = self.setting.root.free_bytes()
        there = "no limit" if math.isinf(free) else f"{_bytes(free)} free"
        total, place = _bytes(max(0, trials) * each), self.setting.root.place
        text = f"disk    {_bytes(each)} a trial, {total} in all, of {there} in {place}"
        return text + (": TOO LITTLE" if trials * each > free else "")

    def _trials_on_one_device(self) -> int:
        placement = self.setting.placement
        if placement.uses_gpus:
            return max(1, math.floor(1 / placement.typical.gpus))
        hosts = {host for (host, _, _), _ in self.timings}
        return math.ceil(placement.slots / len(hosts))


def rehearse(setting: Setting) -> DryRun:
    """Train ten steps of as many trials at once as the sweep would, and forecast the rest.

    Raises ValueError where not even these can be trained.
    """
    recorded = setting.count_recorded()
    left = setting.options.trials - recorded
    expectation = None
    if left > 0:
        expectation = expect_stopping(
            setting.base,
            trials=left,
            slots=setting.placement.slots,
            stops_early=setting.sweep.stops_early,
        )
    return DryRun(
        setting=setting,
        recorded=recorded,
        expectation=expectation,
        timings=_time_trials(setting),
    )


def _time_trials(setting: Setting) -> list[tuple[Machine, Timing]]:
    placement = setting.placement
    typical = placement.typical
    time_one = ray.remote(
        num_cpus=typical.cpus, num_gpus=typical.gpus, memory=typical.memory_bytes
    )(_time_trial)
    count = min(placement.slots, _TIMED_AT_ONCE)
    try:
        results = [time_one.remote(setting.base, typical.cpus) for _ in range(count)]
        timings: list[tuple[Machine, Timing]] = ray.get(results)
    except RayTaskError as error:
        reason = str(error.cause).strip().split("\n", 1)[0]
        raise ValueError(f"a trial of this sweep cannot be trained here: {reason}") from error
    return timings


def _time_trial(config: TrainConfig, threads: int) -> tuple[Machine, Timing]:
    """Measure on a worker, with the resources of a trial."""
    torch.set_num_threads(threads)
    timing = time_steps(config)
    device = resolve_device(config.device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        name, memory = device.type, total_bytes()
    return (socket.gethostname(), name, memory), timing


def _duration(seconds: float) -> str:
    if seconds < 5400:
        return f"{math.ceil(seconds / 60)} min"
    return f"{seconds / 3600:.1f} hours"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
