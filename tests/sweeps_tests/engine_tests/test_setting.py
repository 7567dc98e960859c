"""What a sweep is run with, from its options and machines that are only told."""

import dataclasses

import pytest
from tests_support.machines import machines, options

from search_spaces.lr_momentum import suggest
from sweeps.engine.run import Sweep
from sweeps.engine.setting import open_inputs, resolve

OWN_OPTIONS = {
    "seed=3": "--seed",
    "steps=10": "--max-steps",
    'data.path="/music"': "--data",
    'data.fingerprint="0123456789abcdef"': "--data",
    'data.cache="/cache"': "--storage",
}


@pytest.mark.parametrize("setting", OWN_OPTIONS)
def test_a_field_that_has_an_option_is_not_to_be_set(recordings, tmp_path, setting):
    asked = dataclasses.replace(
        options(),
        data=str(recordings),
        size="demo",
        storage=str(tmp_path),
        relative_to=tmp_path,
        settings=(setting,),
    )
    field, option = setting.partition("=")[0], OWN_OPTIONS[setting]
    with pytest.raises(ValueError, match=rf"^--set={field}; must be given as {option}$"):
        resolve(
            Sweep(name="lr_momentum", space=suggest),
            asked,
            open_inputs(asked),
            machines(),
            show=str,
        )
