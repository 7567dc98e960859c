import json

import pytest

from trainer.config import TRAINER_REVISION, TrainConfig
from trainer.record import FILE_NAME, Record, keep_record, read_record

HERE = {
    "device_kind": "cpu",
    "device_name": "x86_64",
    "threads": 2,
    "python": "3.11.7",
    "platform": "Linux x86_64",
    "versions": {"torch": "2.11.0"},
}
THERE = HERE | {"device_kind": "cuda", "device_name": "a card", "threads": 8}


def record(environment=HERE, **changes):
    fields = {
        "config": TrainConfig(seed=7),
        "data_fingerprint": "0123456789abcdef",
        "commit": "abc",
        "environments": (environment,),
    }
    return Record(**(fields | changes))


def steps_and_kinds(folder):
    return [(e["from_step"], e["device_kind"]) for e in read_record(folder).environments]


def test_a_record_is_read_as_it_was_kept(tmp_path):
    keep_record(tmp_path, record(), step=0)
    expected = record(environment=HERE | {"from_step": 0})
    assert read_record(tmp_path) == expected
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_its_file_holds_all_that_repeating_the_trial_needs(tmp_path):
    keep_record(tmp_path, record(), step=0)
    content = json.loads((tmp_path / FILE_NAME).read_text())
    assert content["config"] == TrainConfig(seed=7).to_fields()
    assert content["fingerprint"] == TrainConfig(seed=7).fingerprint("0123456789abcdef")
    named = ("data_fingerprint", "commit", "trainer_revision")
    assert [content[name] for name in named] == ["0123456789abcdef", "abc", TRAINER_REVISION]


def test_an_older_revision_is_read_as_such():
    text = record().to_text()
    older = json.loads(text) | {"trainer_revision": TRAINER_REVISION - 1}
    read = Record.from_text(json.dumps(older), source="there")
    assert read.trainer_revision == TRAINER_REVISION - 1


def test_going_on_elsewhere_adds_the_place(tmp_path):
    keep_record(tmp_path, record(HERE), step=0)
    keep_record(tmp_path, record(THERE), step=50)
    keep_record(tmp_path, record(HERE), step=75)
    assert steps_and_kinds(tmp_path) == [(0, "cpu"), (50, "cuda"), (75, "cpu")]


def test_going_on_in_the_same_place_adds_nothing(tmp_path):
    keep_record(tmp_path, record(HERE), step=0)
    keep_record(tmp_path, record(HERE), step=50)
    assert steps_and_kinds(tmp_path) == [(0, "cpu")]


def test_starting_over_forgets_where_it_ran_before(tmp_path):
    keep_record(tmp_path, record(THERE), step=0)
    keep_record(tmp_path, record(HERE), step=0)
    assert steps_and_kinds(tmp_path) == [(0, "cpu")]


def test_going_on_in_a_fresh_folder_says_from_which_step(tmp_path):
    keep_record(tmp_path, record(HERE), step=50)
    assert steps_and_kinds(tmp_path) == [(50, "cpu")]


def without(name):
    content = json.loads(record().to_text())
    del content[name]
    return json.dumps(content)


def with_config(config):
    return json.dumps(json.loads(record().to_text()) | {"config": config})


DAMAGED = {
    "empty": "",
    "cut off": record().to_text()[:-40],
    "no object": "[]",
    "no config": without("config"),
    "no data": without("data_fingerprint"),
    "no environments": without("environments"),
    "config of another kind": with_config([]),
    "unknown field": with_config({"optimizer.rate": 1}),
    "value not allowed": with_config({"steps": 0}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_refused_by_the_name_of_its_file(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ValueError, match=rf"^record=.*{FILE_NAME}; must be a trial's config\.json"):
        read_record(tmp_path)


def test_a_missing_record_is_refused_by_the_name_of_its_file(tmp_path):
    with pytest.raises(ValueError, match=r"^record=.*config\.json; .*and there is none$"):
        read_record(tmp_path)
