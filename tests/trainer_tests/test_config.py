import dataclasses
import hashlib
import json
import re
import subprocess
import sys

import pytest

from trainer.config import TRAINER_REVISION, TrainConfig
from trainer.loss_config import TERMS
from trainer.model_config import ModelConfig

DATA = "0123456789abcdef"

# Another allowed value of every field. The first test fails where a new field is missing here.
OTHER_VALUES = {
    "data.path": "music",
    "data.fingerprint": DATA,
    "data.cache": "elsewhere",
    "data.clip_samples": 16_384,
    "data.batch_size": 8,
    "damage.shifts": (1, 2),
    "model.family": "frames",
    "model.channels": (1, 8, 64, 128, 256),
    "model.blocks": (2, 2, 3, 4),
    "model.factors": (8, 8, 2, 2),
    "model.kernel_size": 7,
    "model.dilation": 11,
    "model.activation": "snake",
    "model.output": "difference",
    "loss.stft": 0.5,
    "loss.mel": 1.0,
    "loss.l1": 0.0,
    "loss.cdpam": 1.0,
    "loss.dac": 1.0,
    "loss.encodec": 1.0,
    "loss.adversarial": 1.0,
    "loss.feature_matching": 2.0,
    "loss.balance": "gradient",
    "loss.clips_at_once": 2,
    "loss.dac_blocks": 2,
    "loss.dac_features": "blocks",
    "loss.dac_weights": "dac.pth",
    "loss.dac_weights_hash": DATA,
    "loss.encodec_blocks": 3,
    "loss.encodec_features": "blocks",
    "loss.encodec_weights": "encodec",
    "loss.encodec_weights_hash": DATA,
    "loss.discriminator_lr": 1e-3,
    "optimizer.name": "adamw",
    "optimizer.lr": 1e-3,
    "optimizer.adamw_lr": 1e-4,
    "optimizer.momentum": 0.8,
    "optimizer.preconditioner_probability": 0.1,
    "optimizer.weight_decay": 0.1,
    "optimizer.clip_norm": 1.0,
    "optimizer.warmup_steps": 100,
    "optimizer.schedule": "cosine",
    "validation.clips": 2,
    "validation.clip_samples": 16_384,
    "validation.shifts": (-1, 1),
    "steps": 5,
    "report_every": 7,
    "seed": 1,
    "precision": "bf16",
    "compile": True,
    "device": "cpu",
}
# Where one field alone would not be allowed: what else has to change with it.
COMPANIONS = {
    "loss.dac_blocks": {"loss.dac": 1.0},
    "loss.dac_features": {"loss.dac": 1.0},
    "loss.encodec_blocks": {"loss.encodec": 1.0},
    "loss.encodec_features": {"loss.encodec": 1.0},
    "loss.discriminator_lr": {"loss.adversarial": 1.0},
    "optimizer.preconditioner_probability": {"optimizer.name": "psgd"},
}
SAME_RESULT = {
    "data.path",
    "data.fingerprint",
    "data.cache",
    "loss.dac_weights",
    "loss.encodec_weights",
    "device",
}


def test_every_field_has_another_value_in_these_tests():
    assert OTHER_VALUES.keys() == TrainConfig().to_fields().keys()


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_the_fingerprint_changes_exactly_with_what_changes_the_result(name):
    companions = COMPANIONS.get(name, {})
    before = TrainConfig.from_fields(companions)
    after = TrainConfig.from_fields({**companions, name: OTHER_VALUES[name]})
    assert after.to_fields()[name] != before.to_fields()[name]
    is_same = after.fingerprint(DATA) == before.fingerprint(DATA)
    assert is_same == (name in SAME_RESULT)


def test_the_fingerprint_is_the_hash_of_revision_data_and_resolved_fields():
    fields = TrainConfig(seed=3).to_fields()
    relevant = {name: value for name, value in fields.items() if name not in SAME_RESULT}
    text = json.dumps([TRAINER_REVISION, DATA, relevant], sort_keys=True)
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert TrainConfig(seed=3).fingerprint(DATA) == expected


def test_the_fingerprint_changes_with_the_data():
    assert TrainConfig().fingerprint(DATA) != TrainConfig().fingerprint(DATA[::-1])


def test_a_default_written_out_has_the_fingerprint_of_the_default():
    written = TrainConfig.from_fields({"optimizer.lr": 5e-3, "optimizer.adamw_lr": 5e-4})
    assert written.fingerprint(DATA) == TrainConfig().fingerprint(DATA)
    assert written == TrainConfig()


def test_a_whole_number_for_a_rate_is_that_rate():
    written = TrainConfig.from_fields({"optimizer.clip_norm": 1})
    assert type(written.optimizer.clip_norm) is float
    float_given = TrainConfig.from_fields({"optimizer.clip_norm": 1.0})
    assert written.fingerprint(DATA) == float_given.fingerprint(DATA)


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_fields_survive_json(name):
    config = TrainConfig.from_fields({**COMPANIONS.get(name, {}), name: OTHER_VALUES[name]})
    fields = json.loads(json.dumps(config.to_fields()))
    assert TrainConfig.from_fields(fields) == config


def test_the_defaults_are_the_best_run_of_the_log():
    fields = TrainConfig().to_fields()  # output27: Muon 5e-3 with AdamW 5e-4
    assert fields["model.channels"] == [1, 8, 64, 256, 512]
    assert fields["model.blocks"] == [4, 4, 4, 4]
    assert fields["model.factors"] == [8, 8, 4, 2]
    rates = (fields["optimizer.name"], fields["optimizer.lr"], fields["optimizer.adamw_lr"])
    assert rates == ("muon_adamw", 5e-3, 5e-4)
    assert (fields["validation.clip_samples"], fields["steps"]) == (49_152, 10_000)


@pytest.mark.parametrize(("lr", "expected"), [(1e-2, 1e-3), (3e-4, 3e-5)])
def test_adamw_beside_muon_learns_at_a_tenth_unless_told(lr, expected):
    optimizer = TrainConfig.from_fields({"optimizer.lr": lr}).optimizer
    assert optimizer.adamw_lr == pytest.approx(expected)  # a quotient of decimals: rounding
    told = TrainConfig.from_fields({"optimizer.lr": lr, "optimizer.adamw_lr": 0.5})
    assert told.optimizer.adamw_lr == 0.5


REFUSED = [
    ({"data.clip_samples": 4095}, "data.clip_samples=4095; must be >= 4096"),
    ({"data.batch_size": 0}, "data.batch_size=0; must be >= 1"),
    (
        {"data.clip_samples": 5000},
        "data.clip_samples=5000; must be a multiple of 512, the product of model.factors",
    ),
    (
        {"validation.clip_samples": 49_153},
        "validation.clip_samples=49153; must be a multiple of 512, the product of model.factors",
    ),
    (
        {"damage.shifts": [0, 1]},
        "damage.shifts=[0, 1]; must be whole semitones from -12 to 12 without 0, at least one",
    ),
    (
        {"validation.shifts": []},
        "validation.shifts=[]; must be whole semitones from -12 to 12 without 0, at least one",
    ),
    (
        {"damage.shifts": [13]},
        "damage.shifts=[13]; must be whole semitones from -12 to 12 without 0, at least one",
    ),
    ({"damage.shifts": [1.5]}, "damage.shifts=[1.5]; must be a list of whole numbers"),
    ({"model.family": "mlp"}, "model.family=mlp; must be one of waveform, spectrogram, frames"),
    ({"model.kernel_size": 8}, "model.kernel_size=8; must be odd and from 1 to 4095"),
    ({"model.kernel_size": -1}, "model.kernel_size=-1; must be odd and from 1 to 4095"),
    (
        {"model.kernel_size": 10**12 + 1},
        "model.kernel_size=1000000000001; must be odd and from 1 to 4095",
    ),
    ({"model.dilation": 0}, "model.dilation=0; must be from 1 to 4095"),
    ({"model.activation": "relu"}, "model.activation=relu; must be one of gelu, snake"),
    (
        {"model.blocks": [2, 2, 0, 4]},
        "model.blocks=[2, 2, 0, 4]; must be whole numbers from 1 to 256",
    ),
    (
        {"model.channels": [1, 10**9]},
        "model.channels=[1, 1000000000]; must be whole numbers from 1 to 16384",
    ),
    ({"model.channels": [8, 8]}, "model.channels=[8, 8]; must be 1 first: what comes in"),
    ({"model.channels": [1]}, "model.channels=[1]; must be 1 and the width of each stage"),
    (
        {"model.blocks": [4, 4, 4]},
        "model.blocks=[4, 4, 4]; must be 4 long, one for each of model.channels after the first",
    ),
    (
        {"model.factors": [8, 8]},
        "model.factors=[8, 8]; must be 4 long, one for each of model.channels after the first",
    ),
    (
        {"model.factors": [8, 8, 4, 0]},
        "model.factors=[8, 8, 4, 0]; must be whole numbers from 1 to 4096",
    ),
    (
        {"model.family": "frames", "model.channels": [16, 16]},
        "model.blocks=[4]; must be 2 long, one for each of model.channels",
    ),
    (
        {"model.family": "frames", "model.factors": [8, 8, 4, 2]},
        "model.factors=[8, 8, 4, 2]; must be [] with family frames",
    ),
    (
        {"model.family": "spectrogram", "model.factors": [4, 2, 2, 3]},
        "model.factors=[4, 2, 2, 3]; must be numbers whose product divides 512, the bins of a "
        "spectrum",
    ),
    ({"loss.mel": -1}, "loss.mel=-1.0; must be >= 0"),
    ({"loss.dac": float("nan")}, "loss.dac=nan; must be >= 0"),
    ({"loss.stft": None}, "loss={}; must be at least one term with a weight > 0"),
    ({"loss.stft": 0}, "loss={'stft': 0.0}; must be at least one term with a weight > 0"),
    ({"loss.clips_at_once": 0}, "loss.clips_at_once=0; must be >= 1"),
    ({"loss.dac_blocks": 2}, "loss.dac_blocks=2; must be null without loss.dac"),
    ({"loss.dac": 1, "loss.dac_blocks": 5}, "loss.dac_blocks=5; must be from 1 to 4"),
    (
        {"loss.discriminator_lr": 1e-4},
        "loss.discriminator_lr=0.0001; must be null without loss.adversarial or "
        "loss.feature_matching",
    ),
    (
        {"loss.adversarial": 1, "loss.discriminator_lr": 0},
        "loss.discriminator_lr=0.0; must be > 0",
    ),
    ({"optimizer.lr": -1}, "optimizer.lr=-1.0; must be > 0"),
    ({"optimizer.lr": float("nan")}, "optimizer.lr=nan; must be > 0"),
    ({"optimizer.lr": float("inf")}, "optimizer.lr=inf; must be at most 1e+30 in size"),
    ({"optimizer.lr": 1e38}, "optimizer.lr=1e+38; must be at most 1e+30 in size"),
    ({"optimizer.lr": float("nan")}, "optimizer.lr=nan; must be > 0"),
    ({"optimizer.lr": "fast"}, "optimizer.lr=fast; must be a number"),
    (
        {"optimizer.preconditioner_probability": 0.5},
        "optimizer.preconditioner_probability=0.5; must be null with optimizer.name=muon_adamw",
    ),
    (
        {"optimizer.name": "psgd", "optimizer.preconditioner_probability": 0},
        "optimizer.preconditioner_probability=0.0; must be > 0 and <= 1",
    ),
    ({"optimizer.warmup_steps": -1}, "optimizer.warmup_steps=-1; must be >= 0"),
    ({"optimizer.schedule": "step"}, "optimizer.schedule=step; must be one of constant, cosine"),
    ({"optimizer.adamw_lr": 0}, "optimizer.adamw_lr=0.0; must be > 0"),
    (
        {"optimizer.name": "adamw", "optimizer.adamw_lr": 0.1},
        "optimizer.adamw_lr=0.1; must be null with optimizer.name=adamw, whose rate is "
        "optimizer.lr",
    ),
    ({"optimizer.momentum": 1}, "optimizer.momentum=1.0; must be >= 0 and < 1"),
    ({"optimizer.weight_decay": -0.1}, "optimizer.weight_decay=-0.1; must be >= 0"),
    ({"optimizer.clip_norm": 0}, "optimizer.clip_norm=0.0; must be > 0"),
    ({"validation.clips": 0}, "validation.clips=0; must be >= 1"),
    ({"validation.clip_samples": 512}, "validation.clip_samples=512; must be >= 4096"),
    ({"steps": 0}, "steps=0; must be >= 1"),
    ({"steps": 2.0}, "steps=2.0; must be of type int"),
    ({"steps": True}, "steps=True; must be of type int"),
    ({"report_every": 0}, "report_every=0; must be >= 1"),
    ({"seed": -1}, "seed=-1; must be 0 to 2**63 - 1"),
    ({"seed": 2**63}, "seed=9223372036854775808; must be 0 to 2**63 - 1"),
    ({"precision": "fp8"}, "precision=fp8; must be one of float32, bf16"),
    ({"compile": 1}, "compile=1; must be of type bool"),
    ({"device": 0}, "device=0; must be of type str"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_what_is_not_allowed_is_refused_with_field_value_and_what_is(fields, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TrainConfig.from_fields(fields)


def test_an_unknown_field_is_refused_with_the_choices():
    names = ", ".join(sorted(OTHER_VALUES))
    expected = f"field=optimizer.rate; must be one of {names}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        TrainConfig.from_fields({"optimizer.rate": 1e-3})


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().steps = 5


def test_clips_must_be_a_multiple_of_the_product_of_the_factors():
    assert ModelConfig().length_multiple == 8 * 8 * 4 * 2
    assert ModelConfig(family="spectrogram").length_multiple == 1
    assert ModelConfig(family="frames").length_multiple == 1


@pytest.mark.parametrize(
    ("family", "kernel_size"), [("waveform", 41), ("spectrogram", 7), ("frames", 7)]
)
def test_a_shape_that_is_not_given_is_the_familys_own(family, kernel_size):
    model = TrainConfig.from_fields({"model.family": family}).model
    assert model.kernel_size == kernel_size
    assert len(model.blocks) == len(model.channels) - (family != "frames")


@pytest.mark.parametrize(
    ("name", "rates"), [("muon_adamw", (5e-3, 0.95)), ("adamw", (3e-4, 0.9)), ("psgd", (3e-4, 0.9))]
)
def test_a_rate_that_is_not_given_is_the_optimizers_own(name, rates):
    optimizer = TrainConfig.from_fields({"optimizer.name": name}).optimizer
    assert (optimizer.lr, optimizer.momentum) == rates


def test_every_term_is_a_weight_of_the_loss():
    weights = TrainConfig.from_fields({f"loss.{term}": 0.5 for term in TERMS}).loss.weights
    assert weights == dict.fromkeys(TERMS, 0.5)


def test_a_configuration_is_read_without_torch():
    code = "import sys, trainer.config, trainer.sizes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
