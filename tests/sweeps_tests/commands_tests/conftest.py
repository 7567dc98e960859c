"""What the tests of commands share: a command line, on a storage root of the test's own."""

import pytest


@pytest.fixture
def run(unshift, monkeypatch, tmp_path):
    """Return `unshift`, whose storage root is `home` in the test's own folder."""
    monkeypatch.setenv("UNSHIFT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return unshift
