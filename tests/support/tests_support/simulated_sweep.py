"""A sweep's real driver with simulated trials: its setting, and a loop that plays Ray Tune."""

import dataclasses
import heapq
import itertools
from pathlib import Path
from types import SimpleNamespace

from tests_support.fake_sweep import NeverStops
from tests_support.machines import machines, options
from tests_support.simulated_trainer import pace, results

from search_spaces import lr_momentum
from sweeps.engine.capacity import Capacity, Needs
from sweeps.engine.placement import place
from sweeps.engine.run import Sweep
from sweeps.engine.setting import open_inputs, resolve
from sweeps.engine.tuning import build_driver

SWEEP = Sweep(name="simulated", space=lr_momentum.suggest)


def simulated_setting(folder, *, trials, workers, **changes):
    """Return a sweep of so many trials over workers that are only told; a trial needs no memory."""
    asked = dataclasses.replace(
        options(),
        data="demo",
        size="log",
        trials=trials,
        storage=str(folder),
        seed=0,
        relative_to=Path(folder),
        commit="c0ffee",
        unshift_command="unshift",
        again_command="again",
        told_places="",
        settings=(),
    )
    asked = dataclasses.replace(asked, **changes)
    there = machines((workers, 0.0, 0, 1000))
    setting = resolve(SWEEP, asked, open_inputs(asked), there, show=lambda line: None)
    needs = Needs(is_gpu=False)
    needs.note_peak(setting.base, 0)
    placement = place(asked, there, needed_bytes=0)
    return dataclasses.replace(setting, capacity=Capacity(placement=placement, needs=needs))


def open_driver(setting, study):
    """Return the parts of a driver that says nothing, on the setting's machines."""
    return build_driver(
        setting,
        study,
        look=lambda: setting.placement.machines,
        show=lambda line: None,
        stop=NeverStops(),
    )


def play(driver, trials, *, workers, on_step=lambda: None):
    """Call the driver as Tune would: with so many trials open, each at its own pace, until its
    searcher has no more. `trials` is where these leave their records."""
    numbers = itertools.count()
    running = []
    while True:
        while len(running) < workers:
            assignment = driver.searcher.suggest(str(len(running)))
            if not isinstance(assignment, dict):
                break
            trial = SimpleNamespace(config=assignment, last_result={}, error_file=None)
            told = results(assignment, trials)
            begin = running[0][0] if running else 0.0
            heapq.heappush(running, (begin, next(numbers), trial, told))
        if not running:
            return
        now, number, trial, told = heapq.heappop(running)
        result = next(told)
        trial.last_result = result
        action = driver.stopper.on_trial_result(None, trial, result)
        driver.recorder.on_trial_result(0, [], trial, result)
        if action == "STOP" or "ending" in result:
            driver.recorder.on_trial_complete(0, [], trial)
        else:
            heapq.heappush(running, (now + pace(trial.config), number, trial, told))
        on_step()
