"""An Optuna store that nobody else writes to, so that its open trials are read once.

Optuna's cache keeps trials that have ended, and reads all others again, curves included: three
times for a suggestion, and once for each field that not all trials have. Others might have written
to them; but a sweep's study has one driver.
"""

import contextlib
import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb.storage import RDBStorage
from optuna.trial import FrozenTrial, TrialState


class SoleWriterStorage(_CachedStorage):
    """The cache that Optuna puts over every database, noting in its copies what it writes."""

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._were_read: set[int] = set()
        """Studies."""

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Set a field of a trial."""
        with self._written(trial_id) as trial:
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
            trial.params[param_name] = distribution.to_external_repr(param_value_internal)
            trial.distributions[param_name] = distribution

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Set a trial's value at a step."""
        with self._written(trial_id) as trial:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
            trial.intermediate_values[step] = intermediate_value

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of a trial."""
        with self._written(trial_id) as trial:
            super().set_trial_user_attr(trial_id, key, value)
            trial.user_attrs[key] = json.loads(json.dumps(value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of a trial that is Optuna's own."""
        with self._written(trial_id) as trial:
            super().set_trial_system_attr(trial_id, key, value)
            trial.system_attrs[key] = json.loads(json.dumps(value))

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set a trial's state; it is read again, with the times that the database has noted."""
        try:
            return super().set_trial_state_values(trial_id, state, values)
        finally:
            self._read_again(trial_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial: of one that may change, a copy."""
        trial = self._known(trial_id)
        if trial is None or trial.state.is_finished():
            return super().get_trial(trial_id)
        return copy.deepcopy(trial)

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if study_id not in self._were_read:
            super()._read_trials_from_remote_storage(study_id)
            self._were_read.add(study_id)

    @contextlib.contextmanager
    def _written(self, trial_id: int) -> Iterator[FrozenTrial]:
        """Lend a trial's copy to who writes to it; what failed may be in the database or not."""
        known = self._known(trial_id)
        try:
            yield self.get_trial(trial_id) if known is None else known
        except BaseException:
            self._read_again(trial_id)
            raise

    def _known(self, trial_id: int) -> FrozenTrial | None:
        with self._lock:
            if trial_id not in self._trial_id_to_study_id_and_number:
                return None
            study_id, number = self._trial_id_to_study_id_and_number[trial_id]
            return self._studies[study_id].trials[number]

    def _read_again(self, trial_id: int) -> None:
        known = self._known(trial_id)
        if known is not None:
            read = self._backend.get_trial(trial_id)
            with self._lock:
                study_id, number = self._trial_id_to_study_id_and_number[trial_id]
                self._studies[study_id].trials[number] = read
