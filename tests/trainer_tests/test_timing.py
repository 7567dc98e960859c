import dataclasses
import time

import pytest

from trainer.timing import time_steps
from trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_step_takes_its_share_of_the_time_that_all_take(tiny_config):
    time_steps(tiny_config(), steps=1)  # libraries are loaded
    began_s = time.perf_counter()
    timing = time_steps(tiny_config(), steps=10)
    elapsed_s = time.perf_counter() - began_s
    assert 0 < timing.seconds_per_step < elapsed_s / 10
    assert 0 <= timing.data_wait_share < 1
    assert 0 < timing.validation_seconds < elapsed_s
    assert timing.peak_memory_bytes > 400e6  # torch alone


def test_more_audio_takes_longer(tiny_config):
    def time_of(clips):
        return time_steps(tiny_config(data__batch_size=clips), steps=3).seconds_per_step

    # In turns, and the fastest of each: what else the machine does slows either down.
    short_s, long_s = map(min, zip(*((time_of(1), time_of(64)) for _ in range(3)), strict=True))
    assert long_s > 2 * short_s


def test_a_long_trial_is_timed_in_a_few_steps(tiny_config):
    began_s = time.perf_counter()
    time_steps(tiny_config(steps=1_000_000), steps=2)
    assert time.perf_counter() - began_s < 60  # where all steps would take hours


def test_a_trial_trains_as_ever_after_it_was_timed(tiny_config):
    config = tiny_config()

    def value():
        return train(config, report=lambda row: None).value

    before = value()
    time_steps(config, steps=2)
    assert value() == before


def test_what_diverges_within_the_steps_is_refused(tiny_config):
    config = tiny_config(optimizer__lr=1e10)
    with pytest.raises(ValueError, match=r"^diverged: loss=.* must be a configuration that trains"):
        time_steps(config, steps=5)


def test_what_cannot_be_trained_here_is_refused(tiny_config):
    with pytest.raises(ValueError, match="^device=cuda:99; must be one of auto, cpu"):
        time_steps(tiny_config(device="cuda:99"))
    with pytest.raises(ValueError, match="^data.path=/nowhere; must be an existing folder"):
        time_steps(tiny_config(data__path="/nowhere"))
    other = dataclasses.replace(tiny_config().data, fingerprint="0" * 16)
    with pytest.raises(ValueError, match=f"; must be data {'0' * 16}$"):
        time_steps(dataclasses.replace(tiny_config(), data=other))
