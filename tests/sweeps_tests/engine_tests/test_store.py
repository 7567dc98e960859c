"""How sweeps' studies are kept and found: in a file's database, and in a server's."""

import threading

import optuna
import pytest
from filelock import Timeout

from sweeps.engine.places import resolve_database
from sweeps.engine.store import (
    STORE_REVISION,
    find_studies,
    find_study,
    hold_name,
    keep_run_id,
    open_optuna,
    open_study,
    read_facts,
    read_run_ids,
)

FACTS = {"do_nothing": {"stft": 1.5, "mel": 0.1 + 0.2}, "data_fingerprint": "d" * 16}


@pytest.fixture
def storage(study_url):
    """The studies' storage, as whoever looks into it opens it."""
    return open_optuna(study_url)


@pytest.fixture
def open_setting(study_url):
    """Return a function that opens a setting's study as a driver that has just begun does."""

    def open_on(setting, name="lr_momentum"):
        return open_study(open_optuna(study_url), name, setting, lambda: FACTS)

    return open_on


def setting_of(study):
    return read_facts(study)["setting"]


def test_the_first_setting_has_the_sweeps_own_name(open_setting):
    assert open_setting("aaaaaaaa").study_name == "lr_momentum"
    assert open_setting("bbbbbbbb").study_name == "lr_momentum@bbbbbbbb"


def test_the_same_setting_is_the_same_study_again(open_setting):
    first = open_setting("aaaaaaaa")
    first.set_user_attr("mark", 1)
    assert open_setting("aaaaaaaa").user_attrs["mark"] == 1


def test_a_studys_facts_are_read_as_they_were_noted(open_setting):
    open_setting("aaaaaaaa")
    own = {"sweep": "lr_momentum", "setting": "aaaaaaaa", "revision": STORE_REVISION}
    assert read_facts(open_setting("aaaaaaaa")) == FACTS | own


def test_a_name_alone_means_what_ran_last(open_setting, storage):
    for setting in ("aaaaaaaa", "bbbbbbbb", "aaaaaaaa"):
        open_setting(setting)
    assert setting_of(find_study(storage, "lr_momentum")) == "aaaaaaaa"
    for setting in ("aaaaaaaa", "bbbbbbbb"):  # the first has that name too
        assert setting_of(find_study(storage, f"lr_momentum@{setting}")) == setting
    assert [setting_of(study) for study in find_studies(storage)] == ["bbbbbbbb", "aaaaaaaa"]


def test_a_kill_while_a_study_is_made_costs_nothing(open_setting, storage):
    optuna.create_study(storage=storage, study_name="lr_momentum")  # and then the kill
    with pytest.raises(ValueError, match="must be one of the sweeps there are: none yet"):
        find_study(storage, "lr_momentum")
    assert open_setting("aaaaaaaa").study_name == "lr_momentum"


def test_an_unknown_sweep_lists_those_there_are(open_setting, storage):
    open_setting("aaaaaaaa")
    with pytest.raises(ValueError, match="sweep=lr; must be .*: lr_momentum, lr_momentum@aaaaaaaa"):
        find_study(storage, "lr")


def test_a_study_of_a_revision_to_come_is_refused(open_setting, storage):
    study = open_setting("aaaaaaaa")
    study.set_user_attr("facts", read_facts(study) | {"revision": STORE_REVISION + 1})
    expected = f"study=lr_momentum; must be of revision 1 to {STORE_REVISION}, is of"
    with pytest.raises(ValueError, match=expected):
        open_setting("aaaaaaaa")
    with pytest.raises(ValueError, match=expected):
        read_facts(find_study(storage, "lr_momentum"))


def test_each_trials_run_is_noted_and_the_last_one_counts(open_setting, storage):
    study = open_setting("aaaaaaaa")
    for trial, run in (("0123", "a"), ("4567", "b"), ("0123", "c")):
        keep_run_id(study, trial, run)
    assert read_run_ids(find_study(storage, "lr_momentum")) == {"0123": "c", "4567": "b"}


def test_what_one_host_holds_no_other_does(study_url, host):
    def hold(host_name, name):
        return hold_name(host(host_name), study_url, name)

    with hold("one", "lr@01234567"):
        with hold("other", "lr@89abcdef"):
            pass
        with pytest.raises(Timeout), hold("other", "lr@01234567"):
            raise AssertionError("held twice")
    with hold("other", "lr@01234567"):
        pass


def test_who_is_patient_gets_what_another_host_holds_once_it_lets_go(study_url, host):
    order = []
    one = hold_name(host("one"), study_url, "studies")
    other = hold_name(host("other"), study_url, "studies", timeout_s=60)

    def wait():
        with other:
            order.append("other")

    with one:
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.5)
        order.append("one")
    waiting.join(60)
    assert order == ["one", "other"]


@pytest.mark.parametrize("field", ["study-storage", "tracking-uri"])
def test_a_place_with_a_password_is_refused_without_showing_it(tmp_path, field):
    url = "postgresql://user:secret@host/db"
    with pytest.raises(ValueError, match=rf"^{field}=REDACTED; must hold no password"):
        resolve_database(field, url, relative_to=tmp_path, must_exist=False)


def test_a_bad_database_url_is_refused_in_one_line():
    with pytest.raises(ValueError, match="study-storage=nonsense; must be a database URL"):
        open_optuna("nonsense")
