"""What a trial asks of an object store: requests, bytes and time, by what is done.

    PYTHONPATH=tests/support python tests/benchmarks/object_requests.py

A real store (SeaweedFS) is on the same machine, behind a proxy that counts. Files have the sizes of
the log's net, its checkpoint and best weights, filled with noise.
"""

import contextlib
import os
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests_support.counting_proxy import CountingProxy
from tests_support.stores import serve_stores

from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.root import Root
from trainer.checkpoint import BEST, LAST
from trainer.config import TrainConfig
from trainer.cost import checkpoint_bytes
from trainer.journal import FILE_NAME as JOURNAL
from trainer.models import build_model, count_parameters
from trainer.record import FILE_NAME as RECORD

URL = "s3://unshift/requests"
NAME = "0123456789abcdef"
ROW_BYTES = 6_000
"""Of the log's journal: 250 steps' losses and the scores."""


def main():
    """Print a line for each thing that is done."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stores = stack.enter_context(serve_stores(folder))
        os.environ.update({n: v for n, v in stores.env.items() if n.startswith(("AWS_", "HOME"))})
        proxy = stack.enter_context(CountingProxy(urlsplit(stores.objects).port))
        os.environ["AWS_ENDPOINT_URL"] = proxy.uri
        show(proxy, list(steps()))


def steps():
    """Yield what is done and a function that does it, in the order of a trial's life."""
    best_bytes = 4 * count_parameters(build_model(TrainConfig().model))
    last_bytes = (checkpoint_bytes(TrainConfig()) - best_bytes) // 2
    roots = []

    def root():
        return roots[-1]

    def report(*, is_best):
        folder = root().trial_folder(NAME)
        with (folder / JOURNAL).open("ab") as journal:
            journal.write(os.urandom(ROW_BYTES))
        if is_best:
            (folder / BEST).write_bytes(os.urandom(best_bytes))
        (folder / LAST).write_bytes(os.urandom(last_bytes))

    def begin():
        folder = root().trial_folder(NAME)
        folder.mkdir(parents=True)
        (folder / RECORD).write_bytes(b" " * 4_000)

    finished = TrialRecord(fingerprint=NAME, outcome="finished", value=1.0, step=10_000)
    yield "worker", "opens the root", lambda: roots.append(open_root())
    yield "driver", "proposes: has another sweep trained it?", lambda: root().find_outcome(NAME)
    yield "worker", "begins", lambda: root().fetch_to_train(NAME)
    yield "", "", begin
    for is_best, which in ((True, "first"), (True, "better"), (False, "no better")):
        yield "", "", lambda is_best=is_best: report(is_best=is_best)
        yield "worker", f"a report, {which}", lambda: root().share(NAME)
    yield "worker", "looks whether to stop (each 2 s)", lambda: root().is_asked_to_stop("scale")
    yield "worker", "ends", lambda: root().share(NAME, patience_s=1.0)
    yield "driver", "an end: reads the record", lambda: root().read_record_text(NAME)
    yield "driver", "finished: trained elsewhere?", lambda: root().find_outcome(NAME)
    yield "driver", "finished: keeps the outcome", lambda: root().keep_outcome(finished, study="s")


def open_root():
    """Open the root as a worker of a new host does."""
    return Root.open(URL, relative_to=Path("/"), create=True)


def show(proxy, done):
    """Do each thing and print what it took."""
    print(f"{'who':<8}{'does':<44}{'requests':<34}{'MB up':>8}{'MB down':>9}{'ms':>8}")
    for who, what, work in done:
        proxy.reset()
        began_s = time.perf_counter()
        work()
        took_ms = 1000 * (time.perf_counter() - began_s)
        time.sleep(0.2)  # what is on its way is counted too
        if who:
            count = sum(proxy.requests.values())
            by_method = " ".join(f"{n} {m}" for m, n in sorted(proxy.requests.items()))
            print(
                f"{who:<8}{what:<44}{f'{count}: {by_method}':<34}"
                f"{proxy.sent / 1e6:>8.2f}{proxy.received / 1e6:>9.2f}{took_ms:>8.0f}"
            )


if __name__ == "__main__":
    main()
