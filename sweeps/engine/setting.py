"""What a sweep is run with: its root, its recordings, the fields all trials share, do-nothing."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from optuna.study import Study

from sweeps.engine.leaderboard import format_leaderboard, read_leaderboard
from sweeps.engine.options import SweepOptions
from sweeps.engine.placement import Machines, Placement, place
from sweeps.engine.run import Sweep
from sweeps.engine.stopping import build_stopper
from sweeps.engine.store import Root, open_optuna, open_study
from sweeps.engine.study import SweepPlan
from trainer.config import SAMPLE_RATE_HZ, TrainConfig
from trainer.data import DataSet, open_data
from trainer.evaluate import ValidationSet, score_do_nothing
from trainer.models import build_model, count_parameters
from trainer.sizes import SIZES, default_size

_REPORTS = 8
"""At least so many validations in a trial, however short: ASHA judges at them."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A sweep, resolved."""

    sweep: Sweep
    options: SweepOptions
    placement: Placement
    root: Root
    size: str
    data: DataSet
    fields: Mapping[str, object]
    """What all trials share where it is not the trainer's default. Unresolved, because a default
    may derive from what a trial varies."""

    @property
    def base(self) -> TrainConfig:
        """Return the shared fields as a configuration."""
        return TrainConfig.from_fields(self.fields)

    @property
    def key(self) -> str:
        """Return 8 hex digits for all that must be equal for trials to be compared."""
        return self.base.fingerprint(self.data.fingerprint)[:8]

    @property
    def tracking_uri(self) -> str:
        """Return where MLflow writes."""
        return self.options.tracking_uri or self.root.tracking_uri

    @property
    def plan(self) -> SweepPlan:
        """Return what the study needs to know."""
        return SweepPlan(
            space=self.sweep.space,
            known_points=self.sweep.known_points,
            base=self.fields,
            data_fingerprint=self.data.fingerprint,
            trials=self.options.trials,
            seed=self.options.seed,
        )

    def open_study(self) -> Study:
        """Open this setting's study, with do-nothing's score measured if it is new."""
        storage = open_optuna(self.options.study_storage or self.root.study_url)
        facts: dict[str, Any] = {
            "size": self.size,
            "data_path": self.base.data.path,
            "data_fingerprint": self.data.fingerprint,
            "fields": dict(self.fields),
        }
        study = open_study(storage, self.sweep.name, self.key, facts)
        if "do_nothing" not in study.user_attrs:
            study.set_user_attr("do_nothing", self._score_do_nothing())
        return study

    def summary(self, study: Study) -> str:
        """Return the leaderboard and what a user would type next."""
        options = self.options
        command = options.unshift_command
        where = "" if options.storage_is_implied else f" --storage {self.root.path}"
        again = options.again_command or f"python sweeps/{self.sweep.name}.py --trials {{trials}}"
        lines = [
            "",
            format_leaderboard(read_leaderboard(study)),
            "",
            "Next:",
            f"  {command} ui{where}    # curves and configurations in MLflow",
            f"  {command} rerun best:{study.study_name}{where}    # the best trial again, here",
            f"  {again.format(trials=2 * options.trials)}    # go on, to twice as many trials",
        ]
        return "\n".join(lines)

    def _score_do_nothing(self) -> dict[str, float]:
        clips = ValidationSet.build(self.data, self.base.validation, torch.device("cpu"))
        return score_do_nothing(clips)


def prepare(
    sweep: Sweep, options: SweepOptions, machines: Machines, *, show: Callable[[str], None]
) -> Setting:
    """Resolve the options, decode the recordings, and say what will run."""
    root = Root.open(options.storage, relative_to=options.relative_to, create=True)
    size, why = options.size, "as asked"
    if size is None:
        size, why = default_size(has_gpu=machines.gpus > 0)
    fields = _shared_fields(options, root, size)
    base = TrainConfig.from_fields(fields)
    data = open_data(base.data.path, base.data.cache)
    setting = Setting(
        sweep=sweep,
        options=options,
        placement=place(options, machines),
        root=root,
        size=size,
        data=data,
        fields={**fields, "data.fingerprint": data.fingerprint},
    )
    show(_introduction(setting, why))
    return setting


@contextlib.contextmanager
def hold_sweep(setting: Setting) -> Iterator[None]:
    """Keep other drivers of the same sweep away. Raises ValueError when there is one."""
    folder = setting.root.path / "locks"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / f"{setting.sweep.name}@{setting.key}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"sweep={setting.sweep.name} is running already in {setting.root.path}; "
            "must be run by one driver at a time"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _shared_fields(options: SweepOptions, root: Root, size: str) -> dict[str, object]:
    fields = dict(SIZES[size])
    fields["seed"] = options.seed
    fields["data.cache"] = str(root.cache)
    is_demo = options.data == "demo"
    path = options.relative_to / Path(options.data).expanduser()
    fields["data.path"] = options.data if is_demo else str(path.resolve())
    if options.max_steps is not None:
        usual = TrainConfig.from_fields(fields).report_every
        fields["steps"] = options.max_steps
        fields["report_every"] = max(1, min(usual, options.max_steps // _REPORTS))
    return fields


def _introduction(setting: Setting, why: str) -> str:
    base, data = setting.base, setting.data
    with torch.device("meta"):
        parameters = count_parameters(build_model(base.model))
    minutes = data.samples.size / SAMPLE_RATE_HZ / 60
    rungs = build_stopper(base).rungs()
    batch_seconds = base.data.batch_size * base.data.clip_samples / SAMPLE_RATE_HZ
    return "\n".join(
        [
            f"sweep {setting.sweep.name}: {setting.options.trials} trials, {setting.placement}",
            f"each {base.steps} steps of {batch_seconds:.1f} s of audio; ASHA stops the worse half "
            f"at {' and '.join(map(str, rungs)) or 'no step'}",
            f"size {setting.size} ({why}): {base.model.family} net, "
            f"{parameters / 1e6:.1f} M parameters",
            f"data {base.data.path}: {minutes:.1f} min, {len(data.training)} recordings to train "
            f"on, {len(data.validation)} held out",
            f"storage {setting.root.path}",
        ]
    )
