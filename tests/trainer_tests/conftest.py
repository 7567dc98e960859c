"""What tests of the trainer share."""

import pytest
from tests_support.noise_files import noise, write


@pytest.fixture
def small_disk(mount_disk):
    """A real file system of four megabytes, to be filled."""
    return mount_disk(megabytes=4)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def music(tmp_path):
    """A folder of 12 recordings: noise, so that no two samples are equal."""
    folder = tmp_path / "music"
    folder.mkdir()
    for seed in range(12):
        write(folder / f"{seed:02}.wav", noise(seed))
    return folder
