import json
import math

import pytest

from trainer.journal import FILE_NAME, MEASURED_ONLY, Journal, read_journal

ROWS = [
    {"step": 2, "stft": 1.5, "train_losses": [0.1, 1 / 3], "seconds": 1.25},
    {"step": 4, "stft": 1.25, "train_losses": [0.1 + 0.2, 1e-30], "seconds": 2.5},
]


def test_a_row_is_on_disk_when_append_returns(tmp_path):
    journal = Journal(tmp_path, ())
    for count, row in enumerate(ROWS, 1):
        journal.append(row)
        assert read_journal(tmp_path) == ROWS[:count]  # to the last bit of every float


def test_the_file_is_one_json_object_a_line(tmp_path):
    Journal(tmp_path, ROWS)
    text = (tmp_path / FILE_NAME).read_text()
    assert [json.loads(line) for line in text.splitlines()] == ROWS
    assert text.endswith("\n")


def test_what_no_checkpoint_covers_is_dropped(tmp_path):
    Journal(tmp_path, ROWS)
    journal = Journal(tmp_path, ROWS[:1])
    assert read_journal(tmp_path) == ROWS[:1]
    journal.append(ROWS[1] | {"stft": 1.0})
    assert [row["stft"] for row in read_journal(tmp_path)] == [1.5, 1.0]
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_the_rows_given_are_not_appended_to():
    rows = list(ROWS[:1])
    Journal(None, rows).append(ROWS[1])
    assert rows == ROWS[:1]


def test_without_a_folder_the_rows_are_in_memory():
    journal = Journal(None)
    for row in ROWS:
        journal.append(row)
    assert journal.rows == ROWS


@pytest.mark.parametrize("missing", range(1, 40, 13))
def test_a_half_written_last_line_is_not_a_row_yet(tmp_path, missing):
    Journal(tmp_path, ROWS)
    path = tmp_path / FILE_NAME
    path.write_text(path.read_text()[:-missing])
    assert read_journal(tmp_path) == ROWS[:1]


def long_row(step):
    """A row that no block of a disk has room for."""
    return {"step": step, "stft": 1.5, "train_losses": [step + 1 / 3] * 2000}


def test_rows_that_a_full_disk_does_not_take_are_written_later_in_order(small_disk):
    journal = Journal(small_disk.folder, [long_row(1)])
    small_disk.fill()
    for step in (2, 3):
        with pytest.raises(OSError, match="No space left"):
            journal.append(long_row(step))
        assert read_journal(small_disk.folder) == [long_row(1)]  # half a line is none
    assert not journal.is_written
    small_disk.free()
    journal.append(long_row(4))
    assert read_journal(small_disk.folder) == [long_row(step) for step in (1, 2, 3, 4)]
    assert journal.is_written


@pytest.mark.parametrize("share", [0.0, 0.4, None])
def test_a_journal_cut_short_by_others_is_written_whole_again(tmp_path, share):
    journal = Journal(tmp_path, ROWS)
    path = tmp_path / FILE_NAME
    path.unlink() if share is None else path.write_bytes(path.read_bytes()[: int(90 * share)])
    journal.append({"step": 6, "stft": 1.0})
    assert read_journal(tmp_path) == [*ROWS, {"step": 6, "stft": 1.0}]


def test_a_number_that_is_none_never_gets_into_the_file(tmp_path):
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        Journal(tmp_path).append({"step": 2, "stft": math.nan})
    assert read_journal(tmp_path) == []


NO_ROWS = {
    "text": b"step 2",
    "a list": b"[1, 2]",
    "no step": b'{"stft": 1.5}',
    "half a step": b'{"step": 1.5}',
    "step before the first": b'{"step": -1}',
    "not a number": b'{"step": 2, "stft": NaN}',
    "infinite": b'{"step": 2, "stft": 1e999}',
    "text for a number": b'{"step": 2, "stft": "1.5"}',
    "true": b'{"step": 2, "stft": true}',
    "null": b'{"step": 2, "mel": null}',
    "losses as text": b'{"step": 2, "train_losses": ""}',
    "losses with NaN": b'{"step": 2, "train_losses": [1.0, NaN]}',
    "no text": b"\xff\xfe\x00",
    "nested deeply": b"[" * 200_000,
    "a gigantic number": b'{"step": ' + b"9" * 10_000 + b"}",
    "a big step": b'{"step": ' + b"9" * 100 + b"}",
}


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS)
def test_a_line_that_is_no_row_is_refused_by_file_and_line(tmp_path, line):
    Journal(tmp_path, ROWS)
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(ValueError, match=rf"^journal=.*{FILE_NAME}, line 3; must be a row of fin"):
        read_journal(tmp_path)


def test_a_folder_without_a_journal_has_no_rows(tmp_path):
    assert read_journal(tmp_path) == []


def test_the_training_itself_is_never_counted_as_speed():
    trained = {"step", "stft", "train_loss", "train_losses", "grad_norm_median", "lr"}
    assert not MEASURED_ONLY & trained
