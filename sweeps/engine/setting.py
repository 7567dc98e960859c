"""What a sweep is run with: its root, its recordings, the fields all trials share, do-nothing."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from filelock import Timeout
from optuna.study import Study

from search_spaces.space import SearchSpace, Shared
from sweeps.engine.capacity import Capacity, Needs
from sweeps.engine.database_server import check_server
from sweeps.engine.leaderboard import format_leaderboard, read_leaderboard
from sweeps.engine.mlflow_store import check_store
from sweeps.engine.options import SweepOptions
from sweeps.engine.placement import Machines, Placement, place
from sweeps.engine.places import resolve_database, resolve_path
from sweeps.engine.root import Root
from sweeps.engine.run import Sweep
from sweeps.engine.stopping import build_stopper
from sweeps.engine.store import Facts, find_study, hold_name, open_optuna, open_study
from sweeps.engine.study import SweepPlan
from sweeps.engine.study_records import read_records
from trainer.command_line import parse_settings
from trainer.config import SAMPLE_RATE_HZ, TrainConfig
from trainer.data import DataSet, open_data
from trainer.evaluate import ValidationSet, score_do_nothing
from trainer.fields import require
from trainer.losses.foreign import absent_terms, pin_weights
from trainer.losses.terms import check_foreign
from trainer.models import build_model, count_parameters
from trainer.sizes import default_size, fields_of_size, length_fields

logger = logging.getLogger(__name__)

_OWN_OPTIONS = {
    "data.path": "--data",
    "data.fingerprint": "--data",
    "data.cache": "--storage",
    "seed": "--seed",
    "steps": "--max-steps",
}
"""Fields that a sweep has an option for."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A sweep, resolved."""

    sweep: Sweep
    options: SweepOptions
    capacity: Capacity
    inputs: "Inputs"
    size: str
    fields: Mapping[str, object]
    """What all trials share where it is not the trainer's default. Unresolved, because a default
    may derive from what a trial varies."""

    @property
    def placement(self) -> Placement:
        """Return what trials get of the machines."""
        return self.capacity.placement

    @property
    def root(self) -> Root:
        """Return where everything is kept."""
        return self.inputs.root

    @property
    def data(self) -> DataSet:
        """Return the recordings."""
        return self.inputs.data

    @property
    def base(self) -> TrainConfig:
        """Return the shared fields as a configuration."""
        return TrainConfig.from_fields(self.fields)

    @property
    def key(self) -> str:
        """Return 8 hex digits for all that must be equal for trials to be compared.

        What a space leaves out is in it: a study takes no trials of two spaces.
        """
        left_out = self.search_space.left_out
        return self.base.fingerprint(" ".join([self.data.fingerprint, *left_out]))[:8]

    @property
    def lock_name(self) -> str:
        """Return what one driver at a time holds, and its trials watch."""
        return f"{self.sweep.name}@{self.key}"

    @property
    def plan(self) -> SweepPlan:
        """Return what the study needs to know."""
        capacity = self.capacity
        return SweepPlan(
            space=self.search_space.suggest,
            known_points=self.search_space.known_points,
            base=self.fields,
            data_fingerprint=self.data.fingerprint,
            trials=self.options.trials,
            seed=self.options.seed,
            commit=self.options.commit,
            annotate=self.sweep.annotate,
            find_misfit=capacity.find_misfit,
            note_out_of_memory=capacity.note_out_of_memory,
            note_peak=capacity.needs.note_peak,
            device=capacity.device,
        )

    @functools.cached_property
    def search_space(self) -> SearchSpace:
        """Return what varies, given what all trials share and which weights are here."""
        shared = Shared(
            size=self.size,
            fields=self.base.to_fields(),
            absent_terms=frozenset(absent_terms(self.base.loss)),
        )
        return self.sweep.search_space(shared)

    def open_study(self) -> Study:
        """Open this setting's study, with do-nothing's score measured if it is new."""
        url = self.inputs.study_url
        with hold_name(self.root, url, "studies", timeout_s=600):
            storage = open_optuna(url, for_driver=True)
            return open_study(storage, self.sweep.name, self.key, self._make_facts)

    def count_recorded(self) -> int:
        """Return how many trials this setting's study has that have ended, without making one."""
        url = self.inputs.study_url
        try:
            resolve_database("study-storage", url, relative_to=self.root.path, must_exist=True)
            study = find_study(open_optuna(url), self.lock_name)
        except ValueError:
            return 0
        return sum(record.is_ended for record in read_records(study))

    def summary(self, study: Study) -> str:
        """Return the leaderboard and what a user would type next."""
        options = self.options
        command, places = options.unshift_command, options.told_places
        best = f"best:{study.study_name}"
        again = options.again_command.replace("{trials}", str(2 * options.trials))
        steps = [
            (f"{command} ui{places}", "curves and configurations in MLflow"),
            (f"{command} restore --trial {best}{places} IN OUT", "the best net on your recordings"),
            (f"{command} rerun {best}{places}", "the best trial again, here"),
            (again, "go on, to twice as many trials"),
        ]
        width = max(len(typed) for typed, _ in steps)
        next_steps = [f"  {typed:<{width}}  # {why}" for typed, why in steps]
        board = format_leaderboard(read_leaderboard(study))
        return "\n".join(["", board, "", "Next:", *next_steps])

    def _make_facts(self) -> Facts:
        clips = ValidationSet.build(self.data, self.base.validation, torch.device("cpu"))
        return {
            "size": self.size,
            "data_path": self.base.data.path,
            "data_fingerprint": self.data.fingerprint,
            "fields": dict(self.fields),
            "do_nothing": score_do_nothing(clips),
        }


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a sweep reads and where it writes, looked at before any machine is asked for."""

    root: Root
    path: str
    """Of the recordings: absolute, or `demo`."""
    data: DataSet
    study_url: str
    tracking_uri: str


def open_inputs(options: SweepOptions) -> Inputs:
    """Open stores and storage root, decode the recordings. Raises ValueError for what is wrong."""
    here = options.relative_to
    root = Root.open(options.storage, relative_to=here, create=True)
    study_url, tracking_uri = (
        resolve_database(field, url, relative_to=here, must_exist=False)
        for field, url in (
            ("study-storage", options.study_storage or root.study_url),
            ("tracking-uri", options.tracking_uri or root.tracking_uri),
        )
    )
    check_server("study-storage", study_url)
    if options.tracking_uri is not None or root.tracking_file.is_file():
        check_store(tracking_uri)
    path = options.data
    if path != "demo":
        path = str(resolve_path("data", path, relative_to=here))
    data = open_data(path, root.cache)
    return Inputs(root=root, path=path, data=data, study_url=study_url, tracking_uri=tracking_uri)


def resolve(
    sweep: Sweep,
    options: SweepOptions,
    inputs: Inputs,
    machines: Machines,
    *,
    show: Callable[[str], None],
) -> Setting:
    """Decide on the size and the placement, and say what will run."""
    size, why = options.size, "as asked"
    if size is None:
        size, why = default_size(has_gpu=machines.gpus > 0)
    fields = _shared_fields(options, inputs, size)
    needs = Needs(is_gpu=machines.gpus > 0 and options.gpus_per_trial != 0)
    needed_bytes = needs.of(TrainConfig.from_fields(fields))
    placement = place(options, machines, needed_bytes=needed_bytes)
    setting = Setting(
        sweep=sweep,
        options=options,
        capacity=Capacity(placement=placement, needs=needs),
        inputs=inputs,
        size=size,
        fields=fields,
    )
    show(_introduction(setting, why))
    absent = absent_terms(setting.base.loss)
    for term in setting.search_space.left_out:
        logger.warning("loss.%s is left out of this sweep: %s", term, absent[term])
    return setting


@contextlib.contextmanager
def hold_sweep(setting: Setting) -> Iterator[None]:
    """Keep other drivers of the same sweep away. Raises ValueError when there is one."""
    with contextlib.ExitStack() as stack:
        try:
            url = setting.inputs.study_url
            stack.enter_context(hold_name(setting.root, url, setting.lock_name))
        except Timeout as error:
            raise ValueError(
                f"sweep={setting.sweep.name} is running already in {setting.root.place}; "
                "must be run by one driver at a time"
            ) from error
        yield


def _shared_fields(options: SweepOptions, inputs: Inputs, size: str) -> dict[str, object]:
    fields = fields_of_size(size, _set_fields(options))
    fields["seed"] = options.seed
    fields["data.path"] = inputs.path
    fields["data.fingerprint"] = inputs.data.fingerprint
    fields["data.cache"] = str(inputs.root.cache)
    if options.max_steps is not None:
        usual = TrainConfig.from_fields(fields).report_every
        fields |= length_fields(options.max_steps, report_every=usual)
    loss = pin_weights(TrainConfig.from_fields(fields).loss)
    check_foreign(loss)
    pinned = ("dac_weights_hash", "encodec_weights_hash")
    return fields | {f"loss.{name}": getattr(loss, name) for name in pinned}


def _set_fields(options: SweepOptions) -> dict[str, object]:
    """Return what `--set` gives to all trials. Raises ValueError for what has its own option."""
    fields = parse_settings(options.settings)
    for name, option in _OWN_OPTIONS.items():
        require(name not in fields, "--set", name, f"given as {option}")
    for name in set(fields) & {"loss.dac_weights", "loss.encodec_weights"}:
        path = resolve_path(name, str(fields[name]), relative_to=options.relative_to)
        fields[name] = str(path)
    return fields


def _introduction(setting: Setting, why: str) -> str:
    base, data = setting.base, setting.data
    with torch.device("meta"):
        parameters = count_parameters(build_model(base.model))
    minutes = data.samples.size / SAMPLE_RATE_HZ / 60
    rungs = build_stopper(base, stops_early=setting.sweep.stops_early).rungs()
    stops = f"ASHA stops the worse half at {' and '.join(map(str, rungs))}" if rungs else ""
    batch_seconds = base.data.batch_size * base.data.clip_samples / SAMPLE_RATE_HZ
    return "\n".join(
        [
            f"sweep {setting.sweep.name}: {setting.options.trials} trials, {setting.placement}",
            f"each {base.steps} steps of {batch_seconds:.1f} s of audio; "
            f"{stops or 'all come to the end'}",
            f"size {setting.size} ({why}): {base.model.family} net, "
            f"{parameters / 1e6:.1f} M parameters",
            f"data {base.data.path}: {minutes:.1f} min, {len(data.training)} recordings to train "
            f"on, {len(data.validation)} held out",
            f"storage {setting.root.place}",
        ]
    )
