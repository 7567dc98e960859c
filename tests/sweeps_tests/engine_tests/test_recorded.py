import pytest
from optuna.storages import RDBStorage
from tests_support.fake_sweep import open_sweep, settle
from tests_support.trained_folder import tiny_config, write_trained

from sweeps.engine.places import Places
from sweeps.engine.recorded import find_fingerprint, find_record, find_trained
from sweeps.engine.store import open_study

UNKNOWN = "f" * 16


@pytest.fixture
def places(tmp_path):
    return Places(storage=str(tmp_path), relative_to=tmp_path)


@pytest.fixture
def write_sweep(tmp_path):
    """Return a function that writes a sweep of trials that ended so, as (outcome, value), and
    returns their folders."""

    def write(*endings):
        storage = RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
        study = open_study(storage, "lr_momentum", "0" * 8, lambda: {"do_nothing": {"stft": 1.5}})
        sweep = open_sweep(study)
        folders = []
        for outcome, value in endings:
            suggestion = sweep.next()
            settle(sweep, suggestion, outcome, curve={} if value is None else {10: value})
            folder = tmp_path / "trials" / suggestion.fingerprint
            write_trained(folder, suggestion.config)
            folders.append(folder)
        return folders

    return write


@pytest.fixture
def trials(write_sweep):
    """The folders of a sweep's trials: two finished, the better first, one stopped, one failed."""
    return write_sweep(("finished", 1.1), ("finished", 1.2), ("stopped", 1.0), ("failed", None))


def test_a_net_is_found_by_the_name_of_its_trial(trials, places):
    for folder in trials:
        found = find_trained(folder.name, places)
        assert (found.folder, found.record.fingerprint) == (folder, folder.name)


def test_best_is_the_best_finished_trial_that_has_weights(trials, places, caplog):
    for folder in trials[:2]:
        assert find_trained("best:lr_momentum", places).folder == folder
        (folder / "best.safetensors").unlink()
    with pytest.raises(
        ValueError, match="trial=best:lr_momentum; must be of a sweep whose weights"
    ):
        find_trained("best:lr_momentum", places)
    assert caplog.messages == []


def test_while_no_trial_has_finished_best_is_one_that_might_have_and_is_told(
    write_sweep, places, caplog
):
    *_, stopped, interrupted = write_sweep(
        ("diverged", 0.8), ("out_of_memory", 0.8), ("failed", 0.8), ("stopped", 1.2),
        ("interrupted", 1.1),
    )  # fmt: skip
    assert find_fingerprint("best:lr_momentum", places) == stopped.name
    for folder, ending in ((stopped, "stopped"), (interrupted, "interrupted")):
        caplog.clear()
        assert find_trained("best:lr_momentum", places).folder == folder
        told = (
            f"best:lr_momentum: no trial has finished; this is {folder.name}, {ending} at step 10"
        )
        assert caplog.messages == [told]
        (folder / "best.safetensors").unlink()
    with pytest.raises(ValueError, match="must be of a sweep whose weights"):
        find_trained("best:lr_momentum", places)


@pytest.mark.parametrize("find", [find_fingerprint, find_record, find_trained])
def test_best_is_no_trial_that_went_wrong_nor_one_without_a_report(write_sweep, places, find):
    endings = [(outcome, 0.8) for outcome in ("diverged", "out_of_memory", "failed")]
    write_sweep(*endings, ("interrupted", None))
    expected = "^trial=best:lr_momentum; must be of a sweep with a trial that finished, or that had"
    with pytest.raises(ValueError, match=expected):
        find("best:lr_momentum", places)


def test_the_record_of_the_best_needs_no_weights(trials, places):
    (trials[0] / "best.safetensors").unlink()
    assert find_fingerprint("best:lr_momentum", places) == trials[0].name
    assert find_record("best:lr_momentum", places)[0].fingerprint == trials[0].name


@pytest.mark.parametrize("storage", [".", "nowhere"])
def test_a_folder_needs_no_storage_root(tmp_path, storage):
    places = Places(storage=storage, tracking_uri="foo://bar", relative_to=tmp_path)
    made = write_trained(tmp_path / "exported", tiny_config("waveform"))
    for name in ("exported", "./exported", str(tmp_path / "exported")):
        assert find_trained(name, places) == made


def test_16_hex_digits_are_a_trial_even_where_a_folder_bears_the_name(tmp_path, trials, places):
    elsewhere = write_trained(tmp_path / trials[0].name, tiny_config("waveform"))
    assert find_trained(trials[0].name, places).folder == trials[0]
    assert find_trained(f"./{trials[0].name}", places) == elsewhere


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        ("nope", "trial=nope; must be 16 hex digits, best:SWEEP, or a folder that unshift export"),
        ("trials", "record=.*must be a trial's config.json, and there is none"),
        (UNKNOWN, f"record=.*{UNKNOWN}/config.json; must be"),
        ("best:nope", "sweep=nope; must be one of the sweeps there are"),
        ("", "trial=''; must be a path"),
    ],
)
@pytest.mark.usefixtures("trials")
def test_what_is_not_there_is_said(places, trial, message):
    with pytest.raises(ValueError, match=message):
        find_trained(trial, places)
