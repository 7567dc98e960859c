"""What all tests share: the project's environment variables, and one Ray head."""

from collections.abc import Iterator

import pytest

from cluster import environment
from cluster.local import LocalHead

environment.apply()


@pytest.fixture(scope="session")
def local_head() -> Iterator[LocalHead]:
    """Start one Ray head of two CPUs for every test that needs one."""
    with LocalHead(num_cpus=2) as head:
        yield head
