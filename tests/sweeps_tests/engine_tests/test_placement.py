import pytest
from tests_support.machines import GB, machines, options

from sweeps.engine.placement import place

FOUR_GPUS = (64, 4.0, 80, 500)
CPUS_ONLY = (32, 0.0, 0, 100)


def placed(*nodes, needed_gb=1.0, **asked):
    return place(options(**asked), machines(*nodes), needed_bytes=int(needed_gb * GB))


@pytest.mark.parametrize(
    ("needed_gb", "share", "slots"),
    [(1, 0.125, 32), (8, 0.125, 32), (8.1, 0.25, 16), (30, 0.5, 8), (40, 1.0, 4), (200, 1.0, 4)],
)
def test_a_share_is_what_a_trial_needs_and_a_quarter_more(needed_gb, share, slots):
    there = placed(FOUR_GPUS, needed_gb=needed_gb)
    assert (there.typical.gpus, there.slots, there.most) == (share, slots, 32)


def test_a_share_that_was_asked_for_holds_whatever_is_needed():
    there = placed(FOUR_GPUS, needed_gb=200, gpus_per_trial=0.4)
    assert (there.request(GB).gpus, there.slots, there.most) == (0.4, 8, 8)  # none across two GPUs
    assert not there.shares_by_need


def test_machines_without_a_gpu_take_no_trial_that_needs_one():
    assert placed(FOUR_GPUS, CPUS_ONLY, needed_gb=40).slots == 4
    alone = placed(FOUR_GPUS, CPUS_ONLY, gpus_per_trial=0)
    assert (alone.slots, alone.uses_gpus) == (96, False)


def test_of_different_gpus_the_smallest_counts():
    there = placed((8, 1.0, 80, 60), (8, 1.0, 24, 60), needed_gb=18)
    assert (there.typical.gpus, there.slots) == (1.0, 2)


def test_as_many_trials_share_a_machine_as_its_memory_holds():
    assert placed((32, 0.0, 0, 16), needed_gb=4).slots == 2  # 5 GB with the margin, in steps
    assert placed((32, 1.0, 80, 16)).slots == 4  # 3 GB each, in steps


def test_nothing_is_asked_for_that_no_machine_has():
    there = placed((4, 0.0, 0, 16), (4, 0.0, 0, 8), needed_gb=100)
    assert (there.typical.memory_bytes, there.slots) == (16 * GB, 1)
    on_gpu = placed((4, 1.0, 24, 2), (4, 0.0, 0, 100))
    assert on_gpu.typical.memory_bytes == 2 * GB
    head_and_worker = placed((0, 0.0, 0, 100), (4, 0.0, 0, 8), needed_gb=100)
    assert head_and_worker.typical.memory_bytes == 8 * GB


def test_more_gpus_than_a_machine_has_are_refused():
    with pytest.raises(ValueError, match=r"^gpus-per-trial=2; must be from 0 to 1, the GPUs"):
        placed((4, 1.0, 24, 60), (4, 1.0, 24, 60), gpus_per_trial=2.0)


def test_what_is_said_of_it():
    assert str(placed()) == "2 at a time, each on 1 CPU"
    fixed = placed(FOUR_GPUS, gpus_per_trial=0.5, concurrency=3)
    assert str(fixed) == "3 at a time, each on 0.5 GPU and 1 CPU"
    by_need = "more or less of a GPU by what its net needs"
    assert str(placed(FOUR_GPUS)) == f"32 at a time, each on 0.125 GPU and 1 CPU ({by_need})"
