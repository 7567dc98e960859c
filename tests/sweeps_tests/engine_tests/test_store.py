import optuna
import pytest
from filelock import Timeout

from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.places import resolve_database
from sweeps.engine.root import Root
from sweeps.engine.store import find_study, open_optuna, open_study, read_facts

NAME = "0123456789abcdef"
FACTS = {"do_nothing": {"stft": 1.5}}


@pytest.fixture
def root(tmp_path):
    return Root.open("root", relative_to=tmp_path, create=True)


def open_setting(root, setting, name="lr_momentum"):
    return open_study(open_optuna(root.study_url), name, setting, lambda: FACTS)


def setting_of(study):
    return read_facts(study)["setting"]


def test_the_first_setting_has_the_sweeps_own_name(root):
    assert open_setting(root, "aaaaaaaa").study_name == "lr_momentum"
    assert open_setting(root, "bbbbbbbb").study_name == "lr_momentum@bbbbbbbb"


def test_the_same_setting_is_the_same_study_again(root):
    first = open_setting(root, "aaaaaaaa")
    first.set_user_attr("mark", 1)
    assert open_setting(root, "aaaaaaaa").user_attrs["mark"] == 1


def test_a_name_alone_means_what_ran_last(root):
    for setting in ("aaaaaaaa", "bbbbbbbb", "aaaaaaaa"):
        open_setting(root, setting)
    storage = open_optuna(root.study_url)
    assert setting_of(find_study(storage, "lr_momentum")) == "aaaaaaaa"
    for setting in ("aaaaaaaa", "bbbbbbbb"):  # the first has that name too
        assert setting_of(find_study(storage, f"lr_momentum@{setting}")) == setting


def test_a_kill_while_a_study_is_made_costs_nothing(root):
    storage = open_optuna(root.study_url)
    optuna.create_study(storage=storage, study_name="lr_momentum")  # and then the kill
    with pytest.raises(ValueError, match="must be one of the sweeps there are: none yet"):
        find_study(storage, "lr_momentum")
    assert open_setting(root, "aaaaaaaa").study_name == "lr_momentum"


def test_a_damaged_outcome_is_told_and_its_trial_trained_again(root, caplog):
    (root.trials / NAME).mkdir(parents=True)
    (root.trials / NAME / "outcome.json").write_text('{"study": "x"')
    assert root.find_outcome(NAME) is None
    assert "outcome.json is damaged" in caplog.text


def test_what_is_held_cannot_be_held_by_another(root):
    with root.hold("lr", timeout_s=0), pytest.raises(Timeout), root.hold("lr", timeout_s=0):
        raise AssertionError("held twice")
    with root.hold("lr", timeout_s=0):
        pass


def test_an_unknown_sweep_lists_those_there_are(root):
    open_setting(root, "aaaaaaaa")
    with pytest.raises(ValueError, match="sweep=lr; must be .*: lr_momentum, lr_momentum@aaaaaaaa"):
        find_study(open_optuna(root.study_url), "lr")


def test_a_finished_trial_is_found_by_its_fingerprint(root):
    (root.trials / NAME).mkdir(parents=True)
    record = TrialRecord(fingerprint=NAME, outcome="finished", value=1.25, step=7)
    root.keep_outcome(record, study="older")
    assert root.find_outcome(NAME) == ("older", record)
    assert root.find_outcome("f" * 16) is None


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "", "0123", NAME.upper(), NAME + "0"])
def test_what_is_no_fingerprint_names_no_folder(root, name):
    with pytest.raises(ValueError, match="must be 16 hex digits"):
        root.trial_folder(name)


@pytest.mark.parametrize("name", ["../outside", "/etc", "..", "refused-3"])
def test_a_name_from_a_store_reads_nothing_outside_the_root(root, name):
    for file in ("config.json", "metrics.jsonl"):
        (root.path / "outside").mkdir(exist_ok=True)
        (root.path / "outside" / file).write_text('{"step": 1, "stft": 1.0}\n')
    root.trials.mkdir()
    assert root.read_record_text(name) == ""
    assert root.read_rows(name) == []


def test_a_link_out_of_the_root_is_no_trial(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "outcome.json").write_text('{"study": "x", "record": {}}')
    root.trials.mkdir()
    (root.trials / NAME).symlink_to(outside)
    for look in (root.trial_folder, root.find_outcome, root.read_rows, root.read_record_text):
        with pytest.raises(ValueError, match=f"trial={NAME}; must lie in .*root: .* is a link"):
            look(NAME)


def test_a_relative_root_is_relative_to_where_it_was_given(tmp_path):
    assert Root.open("x", relative_to=tmp_path, create=True).path == tmp_path / "x"


def test_a_root_that_is_not_there_is_refused_unless_it_may_be_made(tmp_path):
    with pytest.raises(ValueError, match="storage=.*nowhere; must be a folder"):
        Root.open("nowhere", relative_to=tmp_path, create=False)


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="must be a folder"):
        Root.open("file", relative_to=tmp_path, create=True)
    with pytest.raises(ValueError, match="storage=.*file/x; must be a folder"):
        Root.open("file/x", relative_to=tmp_path, create=True)


def test_a_root_with_a_password_is_refused_without_showing_it(tmp_path):
    with pytest.raises(ValueError, match=r"^storage=REDACTED; must hold no password"):
        Root.open("s3://key:secret@bucket", relative_to=tmp_path, create=True)


@pytest.mark.parametrize("field", ["study-storage", "tracking-uri"])
def test_a_place_with_a_password_is_refused_without_showing_it(tmp_path, field):
    url = "postgresql://user:secret@host/db"
    with pytest.raises(ValueError, match=rf"^{field}=REDACTED; must hold no password"):
        resolve_database(field, url, relative_to=tmp_path, must_exist=False)


def test_a_bad_database_url_is_refused_in_one_line():
    with pytest.raises(ValueError, match="study-storage=nonsense; must be a database URL"):
        open_optuna("nonsense")
