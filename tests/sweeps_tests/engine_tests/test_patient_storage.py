import threading
from types import SimpleNamespace

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from sweeps.engine import patient_storage
from sweeps.engine.patient_storage import PatientStorage
from sweeps.engine.store import open_optuna


@pytest.fixture
def study(mount_disk):
    """A study on a small disk."""
    disk = mount_disk(megabytes=4)
    storage = open_optuna(f"sqlite:///{disk.folder / 'optuna.db'}", for_driver=True)
    study = optuna.create_study(storage=storage)
    study.disk = disk
    return study


def test_a_write_to_a_full_disk_waits_until_there_is_room_with_one_warning(study, caplog):
    trial = study.ask()
    study.disk.fill()
    writing = threading.Thread(target=lambda: trial.set_user_attr("long", "x" * 100_000))
    writing.start()
    writing.join(2.5)
    assert writing.is_alive()
    study.disk.free()
    writing.join(30)
    assert not writing.is_alive()
    assert study.trials[0].user_attrs == {"long": "x" * 100_000}
    assert [r.getMessage() for r in caplog.records] == [
        "the study's database does not answer, waiting for it: "
        "(sqlite3.OperationalError) database or disk is full"
    ]


def test_a_long_wait_is_told_of_from_time_to_time(caplog):
    tell, error = patient_storage._Telling(), sqlalchemy.exc.OperationalError("", {}, Exception())
    for number, waited in enumerate((0.0, 0.1, 0.9, 1.1, 1.2, 2.2), start=1):
        tell(
            SimpleNamespace(
                seconds_since_start=waited * patient_storage._TOLD_EVERY_S,
                attempt_number=number,
                outcome=SimpleNamespace(exception=lambda: error),
            )
        )
    assert len(caplog.records) == 3


def test_telling_again_what_was_told_is_taken_as_told(tmp_path):
    """As after an answer that was lost."""
    storage = PatientStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    study = optuna.create_study(storage=storage)
    trial_id = study.ask()._trial_id
    for _ in range(2):
        assert storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.5])
    assert [(t.state, t.value) for t in study.trials] == [(TrialState.COMPLETE, 1.5)]
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial_id, TrialState.PRUNED)


def test_an_error_that_does_not_pass_is_raised_at_once(tmp_path):
    storage = open_optuna(f"sqlite:///{tmp_path / 'optuna.db'}", for_driver=True)
    with pytest.raises(KeyError):
        storage.get_trial(99)
