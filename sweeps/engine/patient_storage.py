"""An Optuna store that outlives its database's absence: a restart, a full disk, a cut network.

A sweep can do nothing without its study, and has nothing to lose by waiting: training goes on until
its next report. The first signal still makes trials write their checkpoints, a second one ends.
"""

import logging
from collections.abc import Callable
from typing import Any

import sqlalchemy.exc
import tenacity
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

_LONGEST_PAUSE_S = 10
_TOLD_EVERY_S = 600.0

_PASSING = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)
"""What drivers raise where the database cannot be reached, is locked, or cannot write."""

_CALLED_BY_OPTUNAS_CACHE = ("_create_new_trial", "_get_trials", "_set_trial_param")
"""Beside the public methods."""

logger = logging.getLogger(__name__)


class PatientStorage(RDBStorage):
    """Optuna's store in a database, every call to which waits until the database is there."""

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """Set a trial's state; one that has it already was set by a try whose answer was lost."""
        try:
            return super().set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            if self.get_trial(trial_id).state == state:
                return True
            raise


def _may_pass(error: BaseException) -> bool:
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return isinstance(cause, _PASSING)


class _Telling:
    """Warns when a wait begins, and from time to time while it goes on."""

    def __init__(self) -> None:
        self._told_at_s = float("-inf")

    def __call__(self, call: tenacity.RetryCallState) -> None:
        waited_s = call.seconds_since_start or 0.0
        if call.attempt_number > 1 and waited_s - self._told_at_s < _TOLD_EVERY_S:
            return
        self._told_at_s = waited_s
        assert call.outcome is not None
        error = call.outcome.exception()
        reason = str(error.__cause__ if isinstance(error, StorageInternalError) else error)
        logger.warning(
            "the study's database does not answer, waiting for it: %s", reason.split("\n", 1)[0]
        )


def _patiently(method: Callable[..., Any]) -> Callable[..., Any]:
    return tenacity.retry(
        retry=tenacity.retry_if_exception(_may_pass),
        wait=tenacity.wait_exponential(multiplier=0.25, max=_LONGEST_PAUSE_S),
        before_sleep=_Telling(),
    )(method)


for _name in (*sorted(BaseStorage.__abstractmethods__), *_CALLED_BY_OPTUNAS_CACHE):
    setattr(PatientStorage, _name, _patiently(getattr(PatientStorage, _name)))
