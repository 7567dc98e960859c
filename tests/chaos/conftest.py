"""What tests of faults share: sweeps in processes of their own, on the one Ray head."""

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
