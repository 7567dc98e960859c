"""What the tests of commands share: a command line, as typed."""

import pytest

from sweeps.__main__ import main


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Return a function from arguments to (exit status, standard output, standard error).

    The storage root is `home` in the test's own folder.
    """
    monkeypatch.setenv("UNSHIFT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["unshift", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return call
