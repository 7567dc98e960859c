import json

import pytest

from trainer.description import describe
from trainer.models import build_model, count_parameters

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(tiny_config):
    """One that is quickly described."""
    return tiny_config(damage__shifts=[1], validation__clips=1, data__batch_size=16)


def test_it_is_that_of_the_configuration_on_its_recordings(config, data):
    found = describe(config, with_timing=False)
    assert found.fingerprint == config.fingerprint(data.fingerprint)
    assert found.parameters == count_parameters(build_model(config.model))
    training = sum(recording.samples for recording in data.training)
    assert found.steps_per_epoch == training / (16 * 4096)
    assert found.device == "cpu"
    assert found.timing is None


def test_its_json_is_plain_and_its_parts_are_of_the_whole(config):
    told = describe(config, with_timing=False).to_json()
    assert json.loads(json.dumps(told)) == told
    assert told["config"] == config.to_fields()
    assert sum(told["parameters_by_part"].values()) == told["parameters"]
    assert sum(told["memory_by_part"].values()) == told["peak_memory_bytes"]
    assert 0 < told["tensor_memory_bytes"] < told["peak_memory_bytes"]
    assert told["seconds_per_step"] is told["measured_peak_memory_bytes"] is None


@pytest.mark.usefixtures("no_garbage")
def test_with_timing_it_says_what_was_measured(config):
    told = describe(config, with_timing=True).to_json()
    measured = ("seconds_per_step", "data_wait_share", "validation_seconds")
    assert all(told[name] >= 0 for name in measured)
    # So little is trained that both are the process, give or take what other tests left.
    assert told["peak_memory_bytes"] == pytest.approx(told["measured_peak_memory_bytes"], rel=0.2)


def test_the_net_s_parts_are_named_largest_first(config):
    found = describe(config, with_timing=False)
    of_net = found.memory_of_net
    assert next(iter(of_net)) == "body.2"
    assert of_net.keys() <= found.parameters_by_part.keys()


def test_other_recordings_than_it_asks_for_are_refused(tiny_config):
    with pytest.raises(ValueError, match=f"; must be data {'0' * 16}$"):
        describe(tiny_config(data__fingerprint="0" * 16), with_timing=False)
