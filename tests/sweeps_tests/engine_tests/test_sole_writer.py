import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from tests_support.fake_sweep import open_sweep, settle

from sweeps.engine.store import open_optuna


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"


@pytest.fixture
def study(url):
    return optuna.create_study(storage=open_optuna(url, for_driver=True), study_name="lr")


def in_database(url):
    return optuna.load_study(storage=url, study_name="lr").get_trials()


def test_what_it_knows_of_trials_is_what_the_database_has(study, url):
    sweep = open_sweep(study, trials=20, known_points=[{"optimizer.lr": 5e-3}])
    running = [sweep.next() for _ in range(6)]
    outcomes = ("finished", "stopped", "diverged", "failed", "interrupted")
    for suggestion, outcome in zip(running, outcomes, strict=False):
        settle(sweep, suggestion, outcome, curve={10: 1.5, 20: 1.4})
        assert study.get_trials() == in_database(url)
    sweep.report(running[-1].fingerprint, step=10, value=1.3)
    sweep.keep_stop(running[-1].fingerprint, step=10)
    study.enqueue_trial({"optimizer.lr": 1e-3})
    assert study.get_trials() == in_database(url)
    states = {trial.state for trial in study.get_trials()}
    assert states == set(TrialState)


def test_a_suggestion_does_not_read_the_open_trials_again(study, monkeypatch):
    """However many there are: a thousand GPUs have a thousand, each with a curve."""
    sweep = open_sweep(study, trials=40)
    for suggestion in [sweep.next() for _ in range(12)]:
        settle(sweep, suggestion, "stopped", curve={10: 1.5})
    read = []
    backend = type(study._storage._backend)
    real = backend._get_trials
    monkeypatch.setattr(backend, "_get_trials", lambda *a: read.append(a) or real(*a))
    for _ in range(10):
        sweep.next()
    assert read == []


def test_a_study_that_is_opened_again_is_read_from_the_database(study, url):
    first = open_sweep(study, trials=4)
    suggestion = first.next()
    first.report(suggestion.fingerprint, step=10, value=1.5)
    again = optuna.load_study(storage=open_optuna(url, for_driver=True), study_name="lr")
    taken_up = open_sweep(again, trials=4).next()
    assert taken_up.fingerprint == suggestion.fingerprint
    assert again.get_trials()[0].intermediate_values == {10: 1.5}


def test_after_a_write_that_failed_a_trial_is_read_from_the_database(study, url, monkeypatch):
    trial = study.ask()

    def write_and_fail(storage, trial_id, *, key, value):
        real(storage, trial_id, key, value)
        raise ConnectionError("the answer was lost")

    real = RDBStorage.set_trial_user_attr
    with monkeypatch.context() as patch:
        patch.setattr(type(study._storage._backend), "set_trial_user_attr", write_and_fail)
        with pytest.raises(ConnectionError):
            trial.set_user_attr("note", 1)
    assert study.get_trials()[0].user_attrs == {"note": 1}
    assert study.get_trials() == in_database(url)
