import os
import signal
import subprocess
import sys
import time

from sweeps.engine.signals import ONE_SIGNAL_S, stop_on_signal


def test_a_signal_sets_the_event_and_a_doubled_one_counts_once():
    told = []
    with stop_on_signal(told.append) as asked:
        assert not asked.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.is_set()
    assert told == ["SIGTERM"]


def test_the_handlers_from_before_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signal(lambda name: None):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_later_second_signal_ends_the_process():
    code = (
        "import time\n"
        "from sweeps.engine.signals import stop_on_signal\n"
        "with stop_on_signal(lambda name: print(name, flush=True)):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "SIGINT\n"
    time.sleep(ONE_SIGNAL_S + 0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 128 + signal.SIGINT
    process.stdout.close()
