"""What tests of the command line share."""

import pytest


@pytest.fixture
def unshift(monkeypatch, capsys):
    """Return a function from arguments, as typed, to (exit status, standard output, standard
    error)."""
    from sweeps.__main__ import main  # brings click alone

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["unshift", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return call
