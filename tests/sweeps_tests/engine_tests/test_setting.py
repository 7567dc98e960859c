"""What a sweep is run with, from its options and machines that are only told."""

import dataclasses

import pytest
import torch
from tests_support.machines import machines, options

from search_spaces.lr_momentum import suggest
from sweeps.engine.run import Sweep
from sweeps.engine.setting import open_inputs, resolve
from trainer.config import TrainConfig
from trainer.sizes import fields_of_size

OWN_OPTIONS = {
    "seed=3": "--seed",
    "steps=10": "--max-steps",
    'data.path="/music"': "--data",
    'data.fingerprint="0123456789abcdef"': "--data",
    'data.cache="/cache"': "--storage",
}


@pytest.fixture
def resolved(recordings, tmp_path):
    """Return a function from what `--set` gives to the setting of a sweep of the demo's size."""

    def resolve_with(*settings):
        asked = dataclasses.replace(
            options(),
            data=str(recordings),
            size="demo",
            seed=0,
            storage=str(tmp_path),
            relative_to=tmp_path,
            settings=settings,
        )
        return resolve(
            Sweep(name="lr_momentum", space=suggest),
            asked,
            open_inputs(asked),
            machines(),
            show=str,
        )

    return resolve_with


@pytest.mark.parametrize("setting", OWN_OPTIONS)
def test_a_field_that_has_an_option_is_not_to_be_set(resolved, setting):
    field, option = setting.partition("=")[0], OWN_OPTIONS[setting]
    with pytest.raises(ValueError, match=rf"^--set={field}; must be given as {option}$"):
        resolved(setting)


@pytest.mark.parametrize("family", ["waveform", "spectrogram"])
def test_another_family_has_its_own_shape_at_the_demos_size(resolved, family):
    base = resolved(f"model.family={family}", "model.kernel_size=5").base
    expected = fields_of_size("demo", {"model.family": family, "model.kernel_size": 5})
    assert base.model == TrainConfig.from_fields(expected).model


@pytest.mark.parametrize("also", [["loss.dac=0.1"], []], ids=["used", "only named"])
def test_a_file_that_does_not_hold_dac_is_refused_before_any_trial(resolved, tmp_path, also):
    file = tmp_path / "weights.pth"
    torch.save(torch.ones(3), file)
    with pytest.raises(ValueError, match=rf"^loss\.dac_weights={file}; must be a file with DAC's"):
        resolved(f"loss.dac_weights={file}", *also)


def test_a_folder_that_does_not_hold_encodec_is_refused_before_any_trial(resolved, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"{}")
    named = rf"^loss\.encodec_weights={tmp_path}; must be a folder with EnCodec's"
    with pytest.raises(ValueError, match=named):
        resolved(f"loss.encodec_weights={tmp_path}")
