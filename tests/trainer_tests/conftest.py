"""What tests of the trainer share."""

import pytest


@pytest.fixture
def small_disk(mount_disk):
    """A real file system of four megabytes, to be filled."""
    return mount_disk(megabytes=4)
