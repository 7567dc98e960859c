import pytest
import torch

from sweeps.engine.capacity import Capacity
from sweeps.engine.options import SweepOptions
from sweeps.engine.placement import Machines, place
from trainer.config import TrainConfig
from trainer.memory import estimate_step_bytes
from trainer.sizes import SIZES

pytestmark = pytest.mark.usefixtures("one_thread")

GB = 10**9


def config(**changes):
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return TrainConfig.from_fields({**SIZES["demo"], **named})


def capacity(size, *, is_gpu=True):
    return Capacity(bytes_per_trial=size, is_gpu=is_gpu)


def test_what_fits_is_let_through_and_what_does_not_is_told_why():
    needed = estimate_step_bytes(config())
    assert capacity(needed).find_misfit(config()) == ""
    reason = capacity(needed // 2).find_misfit(config())
    told = (
        f"would need about {needed / GB:.1f} GB, and its share of a GPU has {needed / GB / 2:.1f}"
    )
    assert reason == f"{told} GB; not begun"


def test_on_a_cpu_the_process_counts_too():
    needed = estimate_step_bytes(config())
    assert "its share of this machine" in capacity(needed, is_gpu=False).find_misfit(config())
    assert capacity(needed + 10 * GB, is_gpu=False).find_misfit(config()) == ""


def test_rates_weights_and_seeds_are_not_rehearsed_again():
    place = capacity(1)
    first = place.find_misfit(config())
    assert place.find_misfit(config(optimizer__lr=0.1, loss__stft=3.0, seed=9)) == first
    assert place.find_misfit(config(optimizer__clip_norm=5.0)) == first
    assert len(place._known) == 1


def test_another_optimizer_or_term_is_another_need():
    place = capacity(1)
    for changes in ({}, {"optimizer__name": "adamw"}, {"loss__mel": 1.0}, {"loss__mel": 0.0}):
        place.find_misfit(config(**changes))
    assert len(place._known) == 4


def test_what_ran_out_of_memory_is_not_begun_again_in_that_shape():
    place = capacity(10**15)
    place.note_out_of_memory(config(optimizer__lr=0.1))
    assert place.find_misfit(config(seed=3)).startswith("a trial of this shape ran out of memory")
    assert place.find_misfit(config(data__batch_size=2)) == ""


@pytest.mark.parametrize(
    ("gpus", "share", "expected"),
    [(4.0, None, 80 * GB), (4.0, 0.5, 40 * GB), (8.0, 2.0, 80 * GB)],
)
def test_a_trial_has_its_share_of_a_gpu(gpus, share, expected):
    machines = Machines(cpus=16, gpus=gpus, gpu_bytes=80 * GB)
    assert place(options(gpus_per_trial=share), machines).bytes_per_trial == expected


def test_without_a_gpu_trials_share_the_machine():
    machines = Machines(cpus=4, gpus=0.0, gpu_bytes=0)
    alone, four = (place(options(concurrency=n), machines).bytes_per_trial for n in (1, 4))
    assert alone == pytest.approx(4 * four, abs=4)


def test_a_step_is_estimated_as_its_rehearsal_by_parts_says(tiny_config, data):
    """The reference goes through damage and validation as well, which here take less."""
    from trainer.memory import estimate_memory

    wide = tiny_config(model__channels=[256], data__batch_size=32, validation__clips=1)
    whole = estimate_memory(wide, data, torch.device("cpu"), process_bytes=0)
    assert estimate_step_bytes(wide) == pytest.approx(whole.tensor_bytes, rel=0.1)


def options(*, gpus_per_trial=None, concurrency=None):
    given = dict.fromkeys(SweepOptions.__dataclass_fields__)
    return SweepOptions(**given | {"gpus_per_trial": gpus_per_trial, "concurrency": concurrency})
