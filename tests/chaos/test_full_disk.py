"""A storage root on a real file system that fills up."""

import pytest
from tests_support.driven_sweep import assert_nothing_lost_or_doubled
from tests_support.waiting import wait_until

from sweeps.engine.disk import RESERVE_BYTES

pytestmark = pytest.mark.timeout(600)


@pytest.mark.chaos
def test_new_trials_wait_until_the_disk_has_room(driven, mount_disk):
    disk = mount_disk(megabytes=400)
    sweep = driven("full", storage=disk.folder, trials=2)
    disk.fill(but=RESERVE_BYTES // 2)
    driver = sweep.start()
    wait_until(lambda: "new trials wait until there is room" in sweep.printed(), seconds=240)
    assert not list(sweep.storage.glob("trials/*"))
    disk.free()
    assert driver.wait(240) == 0
    assert_nothing_lost_or_doubled(sweep)


@pytest.mark.slow
def test_a_sweep_waits_for_a_disk_that_fills_up_in_the_middle(driven, mount_disk):
    disk = mount_disk(megabytes=400)
    sweep = driven("full", storage=disk.folder, trials=2, steps=400)
    driver = sweep.start()
    wait_until(lambda: "%" in sweep.printed(), seconds=240)
    waits = "database does not answer, waiting"
    wait_until(lambda: disk.fill() or waits in sweep.printed(), seconds=240)  # and is kept full
    disk.free()
    assert driver.wait(240) == 0, sweep.printed()
    assert_nothing_lost_or_doubled(sweep)
