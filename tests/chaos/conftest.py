"""What tests of faults share: sweeps in processes of their own, on the one Ray head."""

import psutil
import pytest
from tests_support.driven_sweep import DrivenSweep


@pytest.fixture
def driven(local_head, recordings, tmp_path):
    """Return a function that builds a sweep on a storage root of a name."""

    built = []

    def build(name, **more):
        sweep = DrivenSweep(
            storage=more.pop("storage", tmp_path / name),
            recordings=recordings,
            environment=local_head.client_environment,
            **more,
        )
        built.append(sweep)
        return sweep

    yield build
    for sweep in built:
        sweep.end()


@pytest.fixture
def trial_workers(local_head):
    """Return a function that finds the processes on the head that trials are trained in."""

    def find():
        below = psutil.Process(local_head._process.pid).children(recursive=True)
        return [
            process
            for process in below
            if _title(process).startswith("ray::ResourceTrainable")  # `.train` but between reports
        ]

    return find


def _title(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
