"""Malformed input for every reader: all that comes of it is a ValueError of one line.

The examples are the same at every run.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from tests_support.trained_folder import tiny_config, write_trained

from trainer import journal, record
from trainer.checkpoint import BEST, LAST, load_last, save_last
from trainer.command_line import parse_settings
from trainer.config import SAMPLE_RATE_HZ, TrainConfig
from trainer.data import open_data
from trainer.journal import Journal, is_row, read_journal
from trainer.losses.dac import DacDistance, _build_encoder
from trainer.losses.encodec import EncodecDistance
from trainer.record import read_record
from trainer.recordings import UnusableRecording, decode
from trainer.restore import Job, Restoration, process_file
from trainer.trained import read_trained

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(120)]


def examples(count):
    """Return settings under which every run tries the same examples and keeps none on disk."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module", autouse=True)
def hypothesis_home(tmp_path_factory):
    set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))


def is_refused(function, *arguments, **named):
    """Return whether it raised; fail unless that was a ValueError of one line."""
    try:
        function(*arguments, **named)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1, str(error)[:500]
        return True
    return False


@st.composite
def mutations(draw):
    """Return a function from bytes to damaged bytes: flipped, cut out, cut off or written over."""
    edits = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["flip", "cut", "end", "fill", "insert"]),
                st.floats(0, 1, exclude_max=True),
                st.binary(min_size=1, max_size=8),
            ),
            min_size=1,
            max_size=4,
        )
    )

    def mutate(content, *, head=None):
        content = bytearray(content)
        for kind, share, data in edits:
            at = int(share * min(len(content), head or len(content)))
            if kind == "flip" and content:
                content[at] ^= data[0] or 1
            elif kind == "cut":
                del content[at : at + data[0]]
            elif kind == "end":
                del content[at:]
            elif kind == "fill":
                content[at : at + len(data)] = data
            else:
                content[at:at] = data
        return bytes(content)

    return mutate


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**63, 1e308, 1e-320])
FIELDS = st.sampled_from(sorted(TrainConfig().to_fields()))


# Configurations.


@examples(400)
@given(st.dictionaries(FIELDS, JSON | NUMBERS | st.lists(NUMBERS, max_size=3), max_size=3))
def test_fields_of_any_kind_make_a_configuration_or_are_refused(values):
    if not is_refused(TrainConfig.from_fields, values):
        config = TrainConfig.from_fields(values)
        assert TrainConfig.from_fields(json.loads(json.dumps(config.to_fields()))) == config


@examples(100)
@given(st.dictionaries(st.text(max_size=20), JSON, min_size=1, max_size=2))
def test_fields_of_any_name_are_refused(values):
    if not values.keys() <= TrainConfig().to_fields().keys():
        assert is_refused(TrainConfig.from_fields, values)


@examples(200)
@given(FIELDS, st.text() | JSON.map(json.dumps))
def test_a_setting_of_any_text_is_taken_or_refused(name, text):
    def configure():
        return TrainConfig.from_fields(parse_settings((f"{name}={text}",)))

    if not is_refused(configure):
        assert TrainConfig.from_fields(configure().to_fields()) == configure()
    if not is_refused(parse_settings, (text,)):
        assert parse_settings((text,)).keys() == {text.partition("=")[0]}


@pytest.mark.parametrize("name", ["steps", "optimizer.lr", "model.channels", "precision"])
@pytest.mark.parametrize("text", ["[" * 10**5, "9" * 10**5, "9" * 4000, "-" + "9" * 4000])
def test_gigantic_settings_are_refused_in_a_short_line(name, text):
    with pytest.raises(ValueError) as refused:
        TrainConfig.from_fields(parse_settings((f"{name}={text}",)))
    assert str(refused.value).startswith(f"{name}=") and len(str(refused.value)) < 400


# Journals, records and checkpoints.

EMPTY_RECORD = record.Record(config=TrainConfig(), data_fingerprint="", commit="").to_text()
ROWS = [{"step": n, "stft": 1.5 / n, "train_losses": [0.1, 1 / 3]} for n in (2, 4, 6)]
TRIAL = "0123456789abcdef"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with every file that a trial has."""
    folder = tmp_path_factory.mktemp("trained")
    write_trained(folder, tiny_config("frames"))
    Journal(folder, ROWS)
    weights = {"weight": torch.randn(3, 4), "bias": torch.zeros(2)}
    state = {"step": 3, "fingerprint": TRIAL, "model": weights, "seconds": 1.25}
    state |= {"optimizer": {"lr": {"state": {0: {"sum": torch.ones(2)}}}}, "loss": {}}
    state |= {"rng": {"cpu": torch.get_rng_state()}, "journal": ROWS}
    save_last(folder, state | {"interval": {"losses": [0.5], "grad_norms": [1.5]}})
    return folder


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@examples(200)
@given(change=mutations() | st.binary(max_size=200).map(lambda b: lambda content: b))
def test_a_damaged_journal_gives_true_rows_or_is_refused(trained, scratch, change):
    path = scratch / journal.FILE_NAME
    path.write_bytes(change((trained / journal.FILE_NAME).read_bytes()))
    if not is_refused(read_journal, scratch):
        assert all(is_row(row) for row in read_journal(scratch))


@examples(200)
@given(change=mutations() | JSON.map(lambda v: lambda content: json.dumps(v).encode()))
def test_a_damaged_record_is_a_record_or_is_refused(trained, scratch, change):
    (scratch / record.FILE_NAME).write_bytes(change((trained / record.FILE_NAME).read_bytes()))
    if not is_refused(read_record, scratch):
        assert len(read_record(scratch).fingerprint) > 0


@examples(100)
@given(
    name=st.sampled_from(
        ["config", "environments", "trainer_revision", "data_fingerprint", "commit"]
    ),
    value=JSON | st.dictionaries(FIELDS, JSON, max_size=2),
)
def test_a_record_with_parts_of_another_kind_is_refused(trained, scratch, name, value):
    content = json.loads((trained / record.FILE_NAME).read_text())
    (scratch / record.FILE_NAME).write_text(json.dumps(content | {name: value}))
    if not is_refused(read_record, scratch):
        found = read_record(scratch)
        assert record.Record.from_text(found.to_text(), source="again") == found


@examples(300)
@given(change=mutations() | st.binary(max_size=200).map(lambda b: lambda content: b))
def test_a_damaged_checkpoint_is_refused_or_as_it_was(trained, scratch, change):
    expected = load_last(trained, fingerprint=TRIAL)
    (scratch / LAST).write_bytes(change((trained / LAST).read_bytes()))
    if not is_refused(load_last, scratch, fingerprint=TRIAL):
        found = load_last(scratch, fingerprint=TRIAL)
        assert (found["step"], found["journal"]) == (expected["step"], ROWS)
        assert torch.equal(found["model"]["weight"], expected["model"]["weight"])


@examples(100)
@given(change=mutations() | st.binary(max_size=200).map(lambda b: lambda content: b))
def test_damaged_weights_are_refused_or_as_they_were(trained, scratch, change):
    shutil.copy(trained / record.FILE_NAME, scratch)
    (scratch / BEST).write_bytes(change((trained / BEST).read_bytes()))
    if not is_refused(lambda: read_trained(scratch).load(torch.device("cpu"))):
        expected = read_trained(trained).load(torch.device("cpu")).state_dict()
        found = read_trained(scratch).load(torch.device("cpu")).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


# Weights of foreign nets.

SMALL_DAC = {"encoder_dim": 2, "encoder_rates": [2, 2], "latent_dim": 8, "sample_rate": 44_100}
KWARGS = st.fixed_dictionaries(
    {name: st.just(value) | JSON | NUMBERS | st.lists(NUMBERS) for name, value in SMALL_DAC.items()}
)


@pytest.fixture(scope="module")
def dac_file(tmp_path_factory):
    """A file as DAC's authors save it, with a small encoder and nothing else."""
    file = tmp_path_factory.mktemp("dac") / "weights.pth"
    state = {f"encoder.{name}": v for name, v in _build_encoder(SMALL_DAC).state_dict().items()}
    torch.save({"metadata": {"kwargs": SMALL_DAC}, "state_dict": state}, file)
    assert not is_refused(DacDistance, blocks=2, features="units", weights=file)
    return file


@examples(100)
@given(
    change=mutations() | st.binary(max_size=200).map(lambda b: lambda content, head: b),
    head=st.sampled_from([2000, None]),  # what is unpickled comes first
)
def test_a_damaged_file_of_dac_makes_a_net_or_is_refused(dac_file, scratch, change, head):
    file = scratch / "weights.pth"
    file.write_bytes(change(dac_file.read_bytes(), head=head))
    is_refused(DacDistance, blocks=2, features="units", weights=file)


@examples(100)
@given(
    kwargs=KWARGS | JSON,
    state=st.none() | JSON | st.dictionaries(st.just("encoder.block.0.bias") | st.integers(), JSON),
)
def test_a_file_of_dac_with_parts_of_another_kind_is_refused(dac_file, scratch, kwargs, state):
    saved = torch.load(dac_file, weights_only=True)
    saved["metadata"]["kwargs"] = kwargs
    if state is not None:
        saved["state_dict"] = state
    torch.save(saved, scratch / "weights.pth")
    refused = is_refused(DacDistance, blocks=2, features="units", weights=scratch / "weights.pth")
    assert refused or state is None


@pytest.fixture(scope="module")
def encodec_folder(tmp_path_factory):
    from transformers import EncodecConfig, EncodecModel

    folder = tmp_path_factory.mktemp("encodec")
    small = {"num_filters": 2, "hidden_size": 4, "num_lstm_layers": 1, "codebook_size": 4}
    EncodecModel(EncodecConfig(**small)).save_pretrained(folder)
    return folder


ENCODEC_FIELDS = st.sampled_from(
    ["num_filters", "num_residual_layers", "upsampling_ratios", "sampling_rate", "audio_channels"]
    + [
        "norm_type",
        "kernel_size",
        "dilation_growth_rate",
        "pad_mode",
        "use_causal_conv",
        "compress",
    ]
)
SMALL_VALUES = (
    st.integers(-2, 40) | st.floats() | st.text(max_size=8) | st.lists(st.integers(-2, 9))
)


@examples(100)
@given(fields=st.dictionaries(ENCODEC_FIELDS, SMALL_VALUES, min_size=1, max_size=2))
def test_a_configuration_of_encodec_with_other_values_makes_its_net_or_is_refused(
    encodec_folder, scratch, fields
):
    content = json.loads((encodec_folder / "config.json").read_text())
    shutil.copy(encodec_folder / "model.safetensors", scratch)
    (scratch / "config.json").write_text(json.dumps(content | fields))
    is_refused(EncodecDistance, blocks=2, features="units", weights=scratch)


@examples(60)
@given(
    name=st.sampled_from(["config.json", "model.safetensors"]),
    change=mutations() | JSON.map(lambda v: lambda content: json.dumps(v).encode()),
)
def test_a_damaged_folder_of_encodec_makes_a_net_or_is_refused(
    encodec_folder, scratch, name, change
):
    for file in encodec_folder.iterdir():
        content = file.read_bytes()
        (scratch / file.name).write_bytes(change(content) if file.name == name else content)
    is_refused(EncodecDistance, blocks=2, features="units", weights=scratch)


# Recordings.

KINDS = (".wav", ".flac", ".ogg", ".mp3", ".aiff")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A real file of each kind, of 0.6 s in two channels."""
    folder = tmp_path_factory.mktemp("sounds")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, size=(SAMPLE_RATE_HZ * 6 // 10, 2))
    for kind in KINDS:
        soundfile.write(folder / f"sound{kind}", noise, SAMPLE_RATE_HZ)
    return {kind: (folder / f"sound{kind}").read_bytes() for kind in KINDS}


def mutated_sound(sounds, kind, change, in_head, folder):
    path = folder / f"mutated{kind}"
    path.write_bytes(change(sounds[kind], head=100 if in_head else None))
    return path


@pytest.mark.parametrize("kind", KINDS)
@examples(60)
@given(change=mutations(), in_head=st.booleans())
def test_a_damaged_recording_is_sound_or_unusable(sounds, scratch, kind, change, in_head):
    path = mutated_sound(sounds, kind, change, in_head, scratch)
    try:
        samples = decode(path)
    except (UnusableRecording, OSError) as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert np.isfinite(samples).all()
        assert len(samples) < 20 * len(sounds[".wav"])  # no more than the slowest rate can mean


@pytest.fixture(scope="module")
def restoration(trained):
    net = read_trained(trained).load(torch.device("cpu"))
    return Restoration(net=net, device=torch.device("cpu"))


@pytest.mark.parametrize("kind", [".wav", ".flac", ".mp3"])
@examples(12)
@given(change=mutations(), in_head=st.booleans())
def test_restoring_a_damaged_recording_writes_a_whole_one_or_none(
    sounds, scratch, restoration, kind, change, in_head
):
    job = Job(
        source=mutated_sound(sounds, kind, change, in_head, scratch),
        target=Path(scratch, f"restored{kind}"),
    )
    job.target.unlink(missing_ok=True)
    if is_refused(process_file, job, restoration, on_progress=lambda seconds: None):
        assert not job.target.exists()
    else:
        assert np.isfinite(soundfile.read(job.target)[0]).all()


def test_a_folder_of_damaged_recordings_trains_on_none_that_it_does_not_name(
    sounds, tmp_path, caplog
):
    """Every file is served with finite samples, or named."""
    random = np.random.default_rng(0)
    for kind in KINDS:
        for number in range(8):
            content = bytearray(sounds[kind])
            for at in random.integers(len(content) if number % 2 else 60, size=number + 1):
                content[at] ^= int(random.integers(1, 256))
            (tmp_path / f"{number}{kind}").write_bytes(content)
    data = open_data(str(tmp_path), tmp_path / "cache")
    used = {recording.name for recording in data.training + data.validation}
    skipped = {name for name, _ in data.skipped}
    assert used.isdisjoint(skipped) and len(used) + len(skipped) == 8 * len(KINDS)
    assert np.isfinite(np.array(data.samples)).all()
