"""What only an object store's root does (test_root.py has what all roots do)."""

import json
import os
import shutil
import time

import pytest
from tests_support.small_files import read_files, write_files
from tests_support.stores import SERVERS

from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.root import Root, StoreAway, TakenOver
from trainer.checkpoint import BEST, LAST, PREVIOUS
from trainer.data import open_data
from trainer.sample_cache import find_stored

NAME = "0123456789abcdef"

stores = pytest.mark.parametrize("places", ["mirror", SERVERS], indirect=True)
folder_for_a_store = pytest.mark.parametrize("places", ["mirror"], indirect=True)


@pytest.fixture
def store(tmp_path):
    """The folder that stands for a store."""
    return tmp_path / "store"


def stored(root):
    """Return the content of each of the trial's objects."""
    keys = root.store.list_objects(f"trials/{NAME}")
    return {key: root.store.read(f"trials/{NAME}/{key}").decode() for key in keys}


@stores
def test_hosts_have_folders_of_their_own(host):
    one, other = host("one"), host("other")
    assert one.path != other.path
    write_files(one, NAME, journal="rows")
    assert (one.list_trials(), other.list_trials()) == ([], [])
    one.share(NAME)
    assert stored(other) == {"journal.txt": "rows"}
    assert not other.trials.exists()


@folder_for_a_store
def test_recordings_are_decoded_once_a_host_and_stay_there(host, recordings, store):
    again = [host("one").cache, host("other").cache, host("one").cache]
    assert again[0] == again[2] != again[1]
    open_data(str(recordings), again[0])
    (index,) = again[2].glob("*/index.json")
    assert find_stored(again[2], json.loads(index.read_text())["lengths"])
    assert [path.name for path in store.rglob("*")] == [".unshift"]  # the mark alone


@folder_for_a_store
def test_only_what_changed_is_copied_again(host, store):
    one = host("one")
    write_files(one, NAME, journal="rows", weights="w")
    one.share(NAME)
    (store / "trials" / NAME / "weights.txt").write_text("left alone")
    os.utime(store / "trials" / NAME / "weights.txt", ns=(1, 1))
    os.utime(one.trial_folder(NAME) / "weights.txt", ns=(1, 1))
    os.truncate(store / "trials" / NAME / "weights.txt", 1)  # as many bytes as here
    os.utime(store / "trials" / NAME / "weights.txt", ns=(1, 1))
    write_files(one, NAME, journal="more rows")
    one.share(NAME)
    assert stored(one) == {"journal.txt": "more rows", "weights.txt": "l"}


@folder_for_a_store
def test_only_what_changed_is_fetched_again_once_its_clock_has_gone_on(host, store):
    """Stores give times in seconds: two contents of one length may bear the same."""
    one, other = host("one"), host("other")
    write_files(one, NAME, journal="1", weights="1")
    one.share(NAME)
    young_ns, old_ns = time.time_ns() + 60 * 10**9, time.time_ns() - 10**10
    for content, fetched in (("1", "1"), ("2", "1")):
        for name, time_ns in (("journal.txt", young_ns), ("weights.txt", old_ns)):
            (store / "trials" / NAME / name).write_text(content)
            os.utime(store / "trials" / NAME / name, ns=(time_ns, time_ns))
        assert read_files(other.fetch(NAME)) == {"journal.txt": content, "weights.txt": fetched}


@stores
def test_a_checkpoint_moves_to_the_place_of_the_one_before_within_the_store(host):
    one = host("one")
    folder = write_files(one, NAME)
    for step in "123":
        (folder / LAST).write_text(step)
        (folder / BEST).write_text(f"best of {step}")
        one.share(NAME)
    assert stored(one) == {LAST: "3", PREVIOUS: "2", BEST: "best of 3"}


@stores
def test_who_trains_has_what_the_store_has_and_nothing_else(host):
    one, other = host("one"), host("other")
    write_files(one, NAME, journal="rows")
    one.share(NAME)
    write_files(other, NAME, journal="newer rows that were never shared", stray="x")
    assert read_files(other.fetch_to_train(NAME)) == {"journal.txt": "rows"}


@stores
def test_a_host_goes_on_with_what_it_left_until_another_one_has(host):
    one, other = host("one"), host("other")
    one.fetch_to_train(NAME)
    write_files(one, NAME, journal="shared", weights="shared")
    one.share(NAME)
    write_files(one, NAME, journal="not shared")
    write_files(other, NAME, outcome="shared")
    other.share(NAME, only="outcome.txt")
    left = {"journal.txt": "not shared", "weights.txt": "shared", "outcome.txt": "shared"}
    assert read_files(host("one").fetch(NAME, weights=True)) == left
    assert read_files(host("one").fetch_to_train(NAME)) == left
    shared = left | {"journal.txt": "shared"}
    assert read_files(other.fetch_to_train(NAME)) == shared
    assert read_files(host("one").fetch(NAME, weights=True)) == shared
    write_files(one, NAME, journal="not shared")
    assert read_files(host("one").fetch_to_train(NAME)) == shared


@stores
def test_what_a_host_fetched_in_part_is_fetched_whole_the_next_time(host, monkeypatch):
    one, other = host("one"), host("other")
    write_files(one, NAME, a="1", b="1")
    one.share(NAME)
    write_files(other, NAME, a="2", b="2")
    download, calls = type(other.store).download, []

    def break_off(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise KeyboardInterrupt
        download(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(other.store), "download", break_off)
        other.fetch_to_train(NAME)
    assert read_files(host("other").fetch_to_train(NAME)) == {"a.txt": "1", "b.txt": "1"}


@folder_for_a_store
def test_a_store_that_was_emptied_has_nothing_to_train_on(host, store):
    one = host("one")
    one.fetch_to_train(NAME)
    write_files(one, NAME, journal="rows")
    shutil.rmtree(store / "locks")
    assert not list(host("one").fetch_to_train(NAME).iterdir())


@stores
def test_a_trial_that_trains_on_this_host_is_not_fetched_under_it(host):
    one, other = host("one"), host("other")
    write_files(one, NAME, journal="rows")
    one.share(NAME)
    write_files(other, NAME, journal="newer rows")
    with other.hold(NAME, timeout_s=0):
        assert read_files(other.fetch(NAME)) == {"journal.txt": "newer rows"}
    assert read_files(other.fetch(NAME)) == {"journal.txt": "rows"}


@stores
def test_half_written_files_stay_here(host):
    one = host("one")
    (write_files(one, NAME, journal="rows") / "last.pt.tmp").write_text("half")
    one.share(NAME)
    assert stored(one) == {"journal.txt": "rows"}


@stores
def test_what_is_discarded_is_gone_on_both_sides(host):
    one = host("one")
    (write_files(one, NAME, journal="rows") / LAST).write_text("1")
    one.share(NAME)
    one.discard(NAME, [LAST, BEST])
    assert read_files(one.trial_folder(NAME)) == stored(one) == {"journal.txt": "rows"}


@stores
def test_databases_lie_elsewhere_and_artifacts_in_the_store(host, places):
    root = host("one")
    assert root.artifacts == f"{places.storage}/mlflow-artifacts"
    with pytest.raises(ValueError, match="study-storage must be given: [a-z0-9]+:.* holds files"):
        _ = root.study_url
    with pytest.raises(ValueError, match="tracking-uri must be given: [a-z0-9]+:.* holds files"):
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


@folder_for_a_store
def test_what_a_store_that_is_away_was_not_given_it_gets_later(host, store):
    one = host("one")
    write_files(one, NAME, journal="rows")
    store.rename(store.with_name("away"))
    store.write_text("")  # so that nothing can be made in it
    with pytest.raises(StoreAway):
        one.share(NAME)
    store.unlink()
    store.with_name("away").rename(store)
    one.share(NAME, patience_s=1)
    assert stored(one) == {"journal.txt": "rows"}


@stores
def test_checkpoints_are_for_who_trains_and_weights_for_who_asks(host):
    one, other = host("one"), host("other")
    folder = write_files(one, NAME, journal="rows")
    for name in (LAST, BEST):
        (folder / name).write_text(name)
    one.share(NAME)
    assert read_files(other.fetch(NAME)).keys() == {"journal.txt"}
    assert read_files(other.fetch(NAME, weights=True)).keys() == {"journal.txt", BEST}
    assert read_files(other.fetch_to_train(NAME)).keys() == {"journal.txt", BEST, LAST}


@stores
def test_an_outcome_overwrites_nothing_that_another_host_has_shared_since(host):
    one, other = host("one"), host("other")
    write_files(one, NAME, weights="of step 10")
    one.share(NAME)
    other.fetch_to_train(NAME)
    write_files(other, NAME, weights="of step 20")
    other.share(NAME)
    one.keep_outcome(TrialRecord(fingerprint=NAME, outcome="finished"), study="lr")
    assert stored(one)["weights.txt"] == "of step 20"


@stores
def test_a_host_that_was_cut_off_writes_nothing_over_what_another_has_gone_on_with(host):
    lost = host("lost")
    lost.fetch_to_train(NAME)
    write_files(lost, NAME, journal="to 40")
    lost.share(NAME)
    other = host("other")
    assert read_files(other.fetch_to_train(NAME)) == {"journal.txt": "to 40"}
    write_files(lost, NAME, journal="to 48")
    with pytest.raises(TakenOver, match=f"^trial {NAME} is trained on another host by now$"):
        lost.share(NAME, patience_s=60)
    write_files(other, NAME, journal="to 80")
    other.share(NAME)
    with pytest.raises(TakenOver):
        lost.share(NAME)
    assert stored(other) == {"journal.txt": "to 80"}
    other.keep_outcome(
        TrialRecord(fingerprint=NAME, outcome="finished", value=1.0), study="lr@01234567"
    )
    assert host("driver").find_outcome(NAME)[0] == "lr@01234567"
    lost.fetch_to_train(NAME)  # it may have it back
    lost.share(NAME)
