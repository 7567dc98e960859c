from pathlib import Path
from types import SimpleNamespace

import pytest
from tests_support.machines import machines

from sweeps.engine.dry_run import DryRun
from sweeps.engine.forecast import expect_stopping
from sweeps.engine.placement import Placement, Request
from sweeps.engine.root import Root
from trainer.config import TrainConfig
from trainer.sizes import SIZES
from trainer.timing import Timing

DEMO = TrainConfig.from_fields(SIZES["demo"])
GB = 10**9


def dry_run(tmp_path, *, recorded=0, gpus=0.0, slots=2, hosts=("one", "one"), memory=8 * GB):
    setting = SimpleNamespace(
        base=DEMO,
        options=SimpleNamespace(trials=16),
        placement=Placement(
            machines=machines((64, 4.0 * bool(gpus), 80, 1000)),
            gpus=gpus,
            typical=Request(cpus=1, gpus=gpus, memory_bytes=GB),
            concurrency=slots,
        ),
        root=Root(path=Path(tmp_path)),
    )
    left = 16 - recorded
    timings = [
        (
            (host, "cpu", memory),
            Timing(
                seconds_per_step=0.5 + 0.5 * index,
                data_wait_share=0.0,
                validation_seconds=2.0,
                peak_memory_bytes=3 * GB,
            ),
        )
        for index, host in enumerate(hosts)
    ]
    return DryRun(
        setting=setting,
        recorded=recorded,
        expectation=expect_stopping(DEMO, trials=left, slots=slots) if left else None,
        timings=timings,
    )


def line(found, name):
    return next(text for text in str(found).splitlines() if text.startswith(name))


def test_time_is_that_of_steps_and_validations_at_the_slowest_pace(tmp_path):
    found = dry_run(tmp_path)
    steps = found.expectation.duration_steps
    assert found.seconds == pytest.approx(15 + steps * 1.0 + steps / 25 * 2.0)
    assert "of 0.5 to 1 s, a validation of 2 s every 25, on one (cpu)" in line(found, "time")


def test_what_is_recorded_already_is_not_trained_again(tmp_path):
    found = dry_run(tmp_path, recorded=15)
    assert "16, 15 of them recorded already; expected to reach step 50: 1.0" in line(
        found, "trials"
    )
    assert found.expectation.steps == 200
    assert "nothing is left to train" in line(dry_run(tmp_path, recorded=16), "trials")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "3.0 GB a trial, 6.0 GB for 2 at once, of 8.0 GB"),
        ({"memory": 5 * GB}, "of 5.0 GB: TOO MUCH, lower --concurrency"),
        ({"slots": 5, "hosts": ("one", "two")}, "9.0 GB for 3 at once, of 8.0 GB: TOO MUCH"),
        ({"gpus": 1.0, "slots": 4}, "3.0 GB for 1 at once, of 8.0 GB"),
        ({"gpus": 0.25, "slots": 4}, "12.0 GB for 4 at once, of 8.0 GB: TOO MUCH"),
    ],
)
def test_memory_is_that_of_the_trials_that_share_a_device(tmp_path, changes, told):
    assert told in line(dry_run(tmp_path, **changes), "memory")


def test_disk_is_that_of_the_trials_to_come(tmp_path):
    assert "24 MB a trial, 379 MB in all" in line(dry_run(tmp_path), "disk")
    assert "24 MB a trial, 47 MB in all" in line(dry_run(tmp_path, recorded=14), "disk")
