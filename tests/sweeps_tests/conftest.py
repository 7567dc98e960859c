"""What tests of the command line share."""

import signal

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

    before = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, before)  # which `main` has taken, for the whole process
