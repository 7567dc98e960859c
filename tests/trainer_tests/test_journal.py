import json

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


def test_a_folder_without_a_journal_has_no_rows(tmp_path):
    assert read_journal(tmp_path) == []


def test_the_training_itself_is_never_counted_as_speed():
    trained = {"step", "stft", "train_loss", "train_losses", "grad_norm_median", "lr"}
    assert not MEASURED_ONLY & trained
