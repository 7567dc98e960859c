"""What a storage root promises, whatever it is: a folder, which two hosts see, an object store, of
which each host has a mirror of its own, and a folder that stands for an object store."""

import json

import pytest
from filelock import Timeout
from pyarrow import fs
from tests_support.small_files import read_files, write_files
from tests_support.stores import SERVERS

from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.root import Root
from trainer.checkpoint import BEST, LAST
from trainer.journal import Journal

NAME = "0123456789abcdef"

everywhere = pytest.mark.parametrize("places", ["folder", "mirror", SERVERS], indirect=True)


@pytest.fixture
def root(tmp_path):
    return Root.open("root", relative_to=tmp_path, create=True)


@everywhere
def test_what_one_host_shares_another_fetches(host):
    one, other = host("one"), host("other")
    assert (other.list_trials(), read_files(write_files(one, NAME))) == ([], {})
    write_files(one, NAME, journal="rows", weights="w")
    one.share(NAME)
    for fetch in (other.fetch, other.fetch_to_train):
        assert read_files(fetch(NAME)) == {"journal.txt": "rows", "weights.txt": "w"}
    assert other.list_trials() == [NAME]
    assert one.place == other.place


@everywhere
def test_what_is_written_on_the_way_is_seen_once_it_is_shared(host):
    one, other = host("one"), host("other")
    for content in ("10", "10 20", "x"):  # longer, as long, shorter
        write_files(one, NAME, journal=content)
        one.share(NAME)
        assert read_files(other.fetch(NAME)) == {"journal.txt": content}


@everywhere
def test_a_trial_is_trained_by_one_host_after_the_other(host):
    one, other = host("one"), host("other")
    for root, content in ((one, "to 10"), (other, "to 20"), (one, "to 30")):
        root.fetch_to_train(NAME)
        write_files(root, NAME, journal=content)
        root.share(NAME)
        assert read_files(host("a third").fetch(NAME)) == {"journal.txt": content}


@everywhere
def test_a_request_to_stop_reaches_every_host(host):
    one, other = host("one"), host("other")
    assert not other.is_asked_to_stop("lr@01234567")
    one.ask_to_stop("lr@01234567")
    assert other.is_asked_to_stop("lr@01234567")
    assert not other.is_asked_to_stop("lr@89abcdef")
    for root in (one, other):  # the second finds nothing to take back
        root.forget_stop("lr@01234567")
        assert not other.is_asked_to_stop("lr@01234567")


@everywhere
def test_what_is_discarded_is_gone_for_every_host(host):
    one, other = host("one"), host("other")
    (write_files(one, NAME, journal="rows") / LAST).write_text("123")
    one.share(NAME)
    assert [root.measure(NAME, [LAST, BEST]) for root in (one, other)] == [3, 3]
    other.discard(NAME, [LAST, BEST])
    assert [root.measure(NAME, [LAST, BEST]) for root in (one, other)] == [0, 0]
    assert read_files(host("a third").fetch_to_train(NAME)) == {"journal.txt": "rows"}
    assert one.free_bytes() > 1e6


@everywhere
def test_an_outcome_is_known_on_every_host(host):
    one, other = host("one"), host("other")
    write_files(one, NAME)
    record = TrialRecord(fingerprint=NAME, outcome="finished", value=1.25, step=7)
    one.keep_outcome(record, study="older")
    assert other.find_outcome(NAME) == ("older", record)
    assert other.find_outcome("f" * 16) is None


@everywhere
def test_a_damaged_outcome_is_told_and_its_trial_trained_again(host, caplog):
    one, other = host("one"), host("other")
    (write_files(one, NAME) / "outcome.json").write_text('{"study": "x"')
    one.share(NAME)
    assert other.find_outcome(NAME) is None
    assert "outcome.json is damaged" in caplog.text


@everywhere
@pytest.mark.parametrize(
    "changes",
    [
        {"value": "1.2"},
        {"value": None},
        {"value": float("nan")},
        {"fingerprint": "f" * 16},
        {"outcome": "stopped"},
    ],
    ids=str,
)
def test_an_outcome_that_is_not_this_trials_is_damaged(host, caplog, changes):
    one, other = host("one"), host("other")
    record = TrialRecord(fingerprint=NAME, outcome="finished", value=1.25).to_json() | changes
    file = write_files(one, NAME) / "outcome.json"
    file.write_text(json.dumps({"study": "x", "record": record}))
    one.share(NAME)
    assert other.find_outcome(NAME) is None
    (field,) = changes
    assert "outcome.json is damaged" in caplog.text and f": {field}=" in caplog.text


@pytest.mark.parametrize("text", ["[]", "7", '{"study": 7, "record": {}}', "[" * 100_000])
def test_an_outcome_that_is_no_outcome_is_damaged(root, caplog, text):
    (write_files(root, NAME) / "outcome.json").write_text(text)
    assert root.find_outcome(NAME) is None
    assert "outcome.json is damaged" in caplog.text


@everywhere
def test_record_and_journal_are_read_on_every_host(host):
    one, other = host("one"), host("other")
    (write_files(one, NAME) / "config.json").write_text("a record")
    journal = Journal(one.trial_folder(NAME))
    for step in (10, 20, 30):
        journal.append({"step": step, "stft": 1.0})
    one.share(NAME)
    assert other.read_record_text(NAME) == "a record"
    assert [row["step"] for row in other.read_rows(NAME)] == [10, 20, 30]
    assert [row["step"] for row in other.read_rows(NAME, until=20)] == [10, 20]
    assert (other.read_record_text("f" * 16), other.read_rows("f" * 16)) == ("", [])


@everywhere
def test_scratch_can_be_written_to_and_is_gone_at_the_end(host):
    with host("one").lend_scratch() as arguments:
        files = arguments.get("storage_filesystem", fs.LocalFileSystem())
        folder = arguments["storage_path"]
        files.create_dir(f"{folder}/tune")
        with files.open_output_stream(f"{folder}/tune/state") as state:
            state.write(b"what Tune keeps")
        assert files.get_file_info(f"{folder}/tune/state").size == 15
    left = files.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    assert [each.path for each in left if each.is_file] == []


@everywhere
def test_what_is_held_cannot_be_held_by_another_process_of_the_host(host):
    one, again = host("one"), host("one")
    with one.hold("lr", timeout_s=0):
        with again.hold("other", timeout_s=0):
            pass
        with pytest.raises(Timeout), again.hold("lr", timeout_s=0):
            raise AssertionError("held twice")
    with again.hold("lr", timeout_s=0):
        pass


@pytest.mark.parametrize("places", ["folder"], indirect=True)
def test_in_a_folder_a_trial_that_one_host_trains_is_held_for_all(host):
    with host("one").hold(NAME, timeout_s=0):
        with pytest.raises(Timeout), host("other").hold(NAME, timeout_s=0):
            raise AssertionError("held twice")


@everywhere
def test_a_place_that_no_sweep_has_written_to_is_refused_unless_it_may_be_made(places, host):
    nowhere = f"{places.storage}-nowhere"
    with pytest.raises(ValueError, match="storage=.*nowhere; must be .* that a sweep has"):
        Root.open(nowhere, relative_to=places.relative_to, create=False)
    assert host("one").place == host("other").place == places.root().place


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


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="must be a folder"):
        Root.open("file", relative_to=tmp_path, create=True)
    with pytest.raises(ValueError, match="storage=.*file/x; must be a folder"):
        Root.open("file/x", relative_to=tmp_path, create=True)


def test_a_root_with_a_password_is_refused_without_showing_it(tmp_path):
    with pytest.raises(ValueError, match=r"^storage=REDACTED; must hold no password"):
        Root.open("s3://key:secret@bucket", relative_to=tmp_path, create=True)
