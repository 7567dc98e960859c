"""What tests of the trainer share."""

import pytest
from tests_support.small_disk import mounted


@pytest.fixture
def small_disk(tmp_path_factory):
    """A real file system of four megabytes, to be filled."""
    folder = tmp_path_factory.mktemp("small disk")
    try:
        disk = mounted(folder, megabytes=4)
        with disk as opened:
            yield opened
    except OSError as error:
        pytest.skip(f"mounting a small disk needs root on Linux: {error}")
