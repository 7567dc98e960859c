import json
from pathlib import Path

import pytest

from trainer.config import TRAINER_REVISION, TrainConfig
from trainer.model_config import ModelConfig
from trainer.models import build_model, count_parameters
from trainer.record import FILE_NAME, Record, keep_record, read_record

OF_REVISION_1 = Path(__file__).parent / "records" / "revision_1.json"
"""Written by that revision, of its demo net."""

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


def read_revision_1():
    return Record.from_text(OF_REVISION_1.read_text(), source=OF_REVISION_1)


def test_a_record_of_revision_1_keeps_its_revision_and_its_name():
    read = read_revision_1()
    assert (read.trainer_revision, read.fingerprint) == (1, "1057e36a86ef282a")
    assert read.config.fingerprint(read.data_fingerprint, revision=1) != read.fingerprint


def test_the_spectrogram_net_of_revision_1_is_the_frames_net_of_today():
    model = read_revision_1().config.model
    assert model == ModelConfig(
        family="frames", channels=(160,), blocks=(4,), kernel_size=7, output="difference"
    )
    assert count_parameters(build_model(model)) == 1_076_546  # as revision 1 counted


def test_what_revision_1_did_not_have_yet_is_as_it_was_then():
    config = read_revision_1().config
    assert (config.seed, config.optimizer.clip_norm) == (7, 1)  # told
    assert config.optimizer.schedule == "constant"
    assert (config.model.dilation, config.model.activation) == (1, "gelu")
    assert config.loss.weights == {"stft": 1.0}


def test_a_record_of_another_revision_is_written_under_its_own_name():
    read = read_revision_1()
    assert Record.from_text(read.to_text(), source="there") == read


def test_a_record_of_this_revision_is_named_by_what_is_in_it():
    changed = json.loads(record().to_text()) | {"fingerprint": "0" * 16}
    read = Record.from_text(json.dumps(changed), source="there")
    assert read.fingerprint == record().fingerprint


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
