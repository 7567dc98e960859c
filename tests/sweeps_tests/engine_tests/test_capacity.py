import psutil
import pytest
import torch
from tests_support.machines import GB, cpu_capacity, gpu_capacity

from sweeps.engine.capacity import Needs
from sweeps.engine.gpu_memory import CONTEXT_BYTES
from trainer.config import TrainConfig
from trainer.memory import estimate_step_bytes
from trainer.sizes import SIZES

pytestmark = pytest.mark.usefixtures("one_thread")


def config(**changes):
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return TrainConfig.from_fields({**SIZES["demo"], **named})


def capacity(gpu_bytes, **asked):
    return gpu_capacity(gpu_bytes=gpu_bytes, **asked)


def test_what_fits_is_let_through_and_what_does_not_is_told_why():
    needed = estimate_step_bytes(config()) + CONTEXT_BYTES
    assert capacity(needed).find_misfit(config()) == ""
    reason = capacity(needed // 2).find_misfit(config())
    told = f"would need about {needed / GB:.1f} GB, and its place on a GPU has "
    assert reason == f"{told}{needed / GB / 2:.1f} GB; not begun"


@pytest.mark.usefixtures("no_garbage")
def test_on_a_cpu_the_process_counts_too():
    needed = Needs(is_gpu=False).of(config()) - estimate_step_bytes(config())
    assert needed == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)


def test_rates_weights_and_seeds_are_not_rehearsed_again():
    place = capacity(1)
    first = place.find_misfit(config())
    assert place.find_misfit(config(optimizer__lr=0.1, loss__stft=3.0, seed=9)) == first
    assert place.find_misfit(config(optimizer__clip_norm=5.0)) == first
    assert len(place.needs._estimated) == 1


def test_another_optimizer_or_term_is_another_need():
    place = capacity(1)
    for changes in ({}, {"optimizer__name": "adamw"}, {"loss__mel": 1.0}, {"loss__mel": 0.0}):
        place.find_misfit(config(**changes))
    assert len(place.needs._estimated) == 4


def test_what_ran_out_of_memory_is_not_begun_again_in_that_shape():
    place = capacity(10**15)
    place.note_out_of_memory(config(optimizer__lr=0.1))
    assert place.find_misfit(config(seed=3)).startswith("a trial of this shape ran out of memory")
    assert place.find_misfit(config(data__batch_size=2)) == ""


def test_of_a_share_asked_for_a_trial_gets_no_more():
    for share, expected in ((None, 80 * GB), (0.5, 40 * GB)):
        at_most = capacity(80 * GB, gpus_per_trial=share)
        at_most.needs.note_peak(config(), 39 * GB)
        assert at_most.find_misfit(config()) == ""
        at_most.needs.note_peak(config(), expected)
        assert "its place on a GPU has" in at_most.find_misfit(config())


def test_on_a_cpu_a_trial_may_take_what_ray_keeps_to_itself():
    """Ray tells of less than the machine has; what is more than that is tried all the same."""
    there = cpu_capacity(memory_gb=1)
    there.needs.note_peak(config(), 2 * GB)
    assert there.find_misfit(config()) == ""
    assert there.request(config()).memory_bytes == GB  # all that can be asked for
    there.needs.note_peak(config(), 10**15)
    assert "the largest machine has" in there.find_misfit(config())


def test_on_a_cluster_the_machines_with_cpus_for_trials_are_what_counts():
    """Neither a head without them nor the driver's own machine, which has more than 0.6 GB."""
    head, workers = (0, 0.0, 0, 10**6), [(2, 0.0, 0, 0.3), (2, 0.0, 0, 0.5)]
    there = cpu_capacity(head, *workers)
    there.needs.note_peak(config(), GB // 2)
    assert there.find_misfit(config()) == ""
    there.needs.note_peak(config(), GB * 6 // 10)
    told = "would need about 0.6 GB, and the largest machine has 0.5 GB; not begun"
    assert there.find_misfit(config()) == told


def test_while_no_machine_has_cpus_nothing_is_too_large():
    head = cpu_capacity((0, 0.0, 0, 1))
    head.needs.note_peak(config(), 10**15)
    assert head.find_misfit(config()) == ""


def test_what_was_measured_is_believed_for_all_trials_of_the_shape():
    there = capacity(16 * GB)
    assert there.request(config()).gpus == 0.125
    there.needs.note_peak(config(optimizer__lr=0.1), 2 * GB)
    assert there.request(config(seed=3)).gpus == 0.25
    there.needs.note_peak(config(), GB)  # another trial's first report: the most is what counts
    assert there.request(config(seed=3)).gpus == 0.25
    assert there.request(config(data__batch_size=2)).gpus == 0.125


def test_a_step_is_estimated_as_its_rehearsal_by_parts_says(tiny_config, data):
    """The reference goes through damage and validation as well, which here take less."""
    from trainer.memory import estimate_memory

    wide = tiny_config(model__channels=[256], data__batch_size=32, validation__clips=1)
    whole = estimate_memory(wide, data, torch.device("cpu"), process_bytes=0)
    assert estimate_step_bytes(wide) == pytest.approx(whole.tensor_bytes, rel=0.1)
