"""Over a folder that stands for an object store; tests/chaos/test_real_stores.py has a real one."""

import json
import os

import pytest

from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.root import Root, StoreAway, TakenOver
from trainer.checkpoint import BEST, LAST, PREVIOUS
from trainer.data import open_data
from trainer.sample_cache import find_stored

NAME = "0123456789abcdef"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def host(store, tmp_path, monkeypatch):
    """Return a function that opens the store's root as a host of a name sees it."""

    def open_on(name):
        monkeypatch.setenv("HOME", str(tmp_path / name))
        return Root.open(f"file://{store}", relative_to=tmp_path, create=True)

    return open_on


def write(root, **files):
    folder = root.trial_folder(NAME)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.txt").write_text(content)
    return folder


def contents(folder):
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_what_one_host_shares_another_fetches(host):
    one, other = host("one"), host("other")
    assert one.path != other.path
    write(one, journal="rows", weights="w")
    one.share(NAME)
    assert contents(other.fetch(NAME)) == {"journal.txt": "rows", "weights.txt": "w"}
    assert other.list_trials() == [NAME]
    assert one.place == other.place


def test_recordings_are_decoded_once_a_host_and_stay_there(host, recordings, store):
    again = [host("one").cache, host("other").cache, host("one").cache]
    assert again[0] == again[2] != again[1]
    open_data(str(recordings), again[0])
    (index,) = again[2].glob("*/index.json")
    assert find_stored(again[2], json.loads(index.read_text())["lengths"])
    assert [path.name for path in store.rglob("*")] == [".unshift"]  # the mark alone


def test_only_what_changed_is_copied_again(host, store):
    one = host("one")
    write(one, journal="rows", weights="w")
    one.share(NAME)
    (store / "trials" / NAME / "weights.txt").write_text("left alone")
    os.utime(store / "trials" / NAME / "weights.txt", ns=(1, 1))
    os.utime(one.trial_folder(NAME) / "weights.txt", ns=(1, 1))
    os.truncate(store / "trials" / NAME / "weights.txt", 1)  # as many bytes as here
    os.utime(store / "trials" / NAME / "weights.txt", ns=(1, 1))
    write(one, journal="more rows")
    one.share(NAME)
    assert contents(store / "trials" / NAME) == {"journal.txt": "more rows", "weights.txt": "l"}


def test_a_checkpoint_moves_to_the_place_of_the_one_before_within_the_store(host, store):
    one = host("one")
    folder = write(one)
    for step in "123":
        (folder / LAST).write_text(step)
        (folder / BEST).write_text(f"best of {step}")
        one.share(NAME)
    expected = {LAST: "3", PREVIOUS: "2", BEST: "best of 3"}
    assert contents(store / "trials" / NAME) == expected


def test_who_trains_has_what_the_store_has_and_nothing_else(host):
    one, other = host("one"), host("other")
    write(one, journal="rows")
    one.share(NAME)
    write(other, journal="newer rows that were never shared", stray="x")
    assert contents(other.fetch_to_train(NAME)) == {"journal.txt": "rows"}


def test_a_trial_that_trains_on_this_host_is_not_fetched_under_it(host):
    one, other = host("one"), host("other")
    write(one, journal="rows")
    one.share(NAME)
    write(other, journal="newer rows")
    with other.hold(NAME, timeout_s=0):
        assert contents(other.fetch(NAME)) == {"journal.txt": "newer rows"}
    assert contents(other.fetch(NAME)) == {"journal.txt": "rows"}


def test_half_written_files_stay_here(host, store):
    one = host("one")
    (write(one, journal="rows") / "last.pt.tmp").write_text("half")
    one.share(NAME)
    assert contents(store / "trials" / NAME) == {"journal.txt": "rows"}


def test_an_outcome_is_known_on_every_host(host):
    one, other = host("one"), host("other")
    write(one)
    record = TrialRecord(fingerprint=NAME, outcome="finished", value=1.5)
    one.keep_outcome(record, study="lr")
    assert other.find_outcome(NAME) == ("lr", record)


def test_a_request_to_stop_reaches_every_host(host):
    one, other = host("one"), host("other")
    assert not other.is_asked_to_stop("lr@01234567")
    one.ask_to_stop("lr@01234567")
    assert other.is_asked_to_stop("lr@01234567")
    one.forget_stop("lr@01234567")
    assert not other.is_asked_to_stop("lr@01234567")


def test_what_is_discarded_is_gone_on_both_sides(host, store):
    one = host("one")
    (write(one, journal="rows") / LAST).write_text("1")
    one.share(NAME)
    assert one.measure(NAME, [LAST, BEST]) == 1
    one.discard(NAME, [LAST, BEST])
    assert one.measure(NAME, [LAST, BEST]) == 0
    assert contents(one.trial_folder(NAME)) == contents(store / "trials" / NAME)


def test_scratch_is_in_the_store_and_gone_at_the_end(host, store):
    with host("one").lend_scratch() as arguments:
        path = arguments["storage_path"]
        arguments["storage_filesystem"].create_dir(f"{path}/tune")
        assert path.startswith(str(store))
        assert os.path.isdir(f"{path}/tune")
    assert not os.path.exists(path)


def test_databases_lie_elsewhere_and_artifacts_in_the_store(host, store):
    root = host("one")
    assert root.artifacts == f"file://{store}/mlflow-artifacts"
    with pytest.raises(ValueError, match="study-storage must be given: file:.* holds files"):
        _ = root.study_url
    with pytest.raises(ValueError, match="tracking-uri must be given: file:.* holds files"):
        _ = root.tracking_uri


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("gopher://x/y", "storage=gopher://x/y; must be a folder, or a URL such as s3://"),
        ("file:///no/such", "storage=file:///no/such; must be a place that a sweep has written"),
    ],
)
def test_a_url_of_no_store_is_refused(url, problem, tmp_path):
    with pytest.raises(ValueError, match=problem):
        Root.open(url, relative_to=tmp_path, create=False)


def test_a_store_that_does_not_answer_is_told_from_one_that_is_none(tmp_path):
    url = "s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    with pytest.raises(StoreAway, match="must be a store that answers: .*bucket"):
        Root.open(url, relative_to=tmp_path, create=True)


def test_what_a_store_that_is_away_was_not_given_it_gets_later(host, store):
    one = host("one")
    write(one, journal="rows")
    store.rename(store.with_name("away"))
    store.write_text("")  # so that nothing can be made in it
    with pytest.raises(StoreAway):
        one.share(NAME)
    store.unlink()
    store.with_name("away").rename(store)
    one.share(NAME, patience_s=1)
    assert contents(store / "trials" / NAME) == {"journal.txt": "rows"}


def test_checkpoints_are_for_who_trains_and_weights_for_who_asks(host):
    one, other = host("one"), host("other")
    folder = write(one, journal="rows")
    for name in (LAST, BEST):
        (folder / name).write_text(name)
    one.share(NAME)
    assert contents(other.fetch(NAME)).keys() == {"journal.txt"}
    assert contents(other.fetch(NAME, weights=True)).keys() == {"journal.txt", BEST}
    assert contents(other.fetch_to_train(NAME)).keys() == {"journal.txt", BEST, LAST}


def test_an_outcome_overwrites_nothing_that_another_host_has_shared_since(host, store):
    one, other = host("one"), host("other")
    write(one, weights="of step 10")
    one.share(NAME)
    other.fetch_to_train(NAME)
    write(other, weights="of step 20")
    other.share(NAME)
    one.keep_outcome(TrialRecord(fingerprint=NAME, outcome="finished"), study="lr")
    assert (store / "trials" / NAME / "weights.txt").read_text() == "of step 20"


def test_a_host_that_was_cut_off_writes_nothing_over_what_another_has_gone_on_with(host, store):
    lost = host("lost")
    lost.fetch_to_train(NAME)
    write(lost, journal="to 40")
    lost.share(NAME)
    other = host("other")
    assert contents(other.fetch_to_train(NAME)) == {"journal.txt": "to 40"}
    write(lost, journal="to 48")
    with pytest.raises(TakenOver, match=f"^trial {NAME} is trained on another host by now$"):
        lost.share(NAME, patience_s=60)
    write(other, journal="to 80")
    other.share(NAME)
    with pytest.raises(TakenOver):
        lost.share(NAME)
    assert contents(store / "trials" / NAME) == {"journal.txt": "to 80"}
    other.keep_outcome(
        TrialRecord(fingerprint=NAME, outcome="finished", params={}), study="lr@01234567"
    )
    assert host("driver").find_outcome(NAME)[0] == "lr@01234567"
    lost.fetch_to_train(NAME)  # it may have it back
    lost.share(NAME)
