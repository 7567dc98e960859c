"""What all tests share: the project's environment variables, small recordings and configurations,
a Ray head, and real stores."""

import contextlib
import secrets
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
import soundfile
import torch
from tests_support.small_disk import mounted
from tests_support.stores import Stores, serve_stores
from tests_support.titles import trial_workers_below
from tests_support.trained_folder import TINY
from xdist.scheduler import LoadFileScheduling

from cluster import environment
from cluster.local import LocalHead
from trainer.config import SAMPLE_RATE_HZ, TrainConfig
from trainer.data import open_data

environment.apply()

OVER_STORES = ("test_real_stores.py", "test_store_commands.py")
"""Files whose tests need the real stores; others have `servers` as a parameter."""


class _Dealing(LoadFileScheduling):
    """Gives a process a file at a time, and to one of them all that needs the real stores: to start
    those takes longer than most tests."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, parameters = nodeid.partition("[")
        is_over_stores = "servers" in parameters or any(name in file for name in OVER_STORES)
        return "stores" if is_over_stores else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config, log):
    """Deal out tests so, where files are dealt out."""
    return _Dealing(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items):
    """Let the files that take longest come first: at the end, the other workers would be idle."""
    sweeps = {item.path for item in items if "local_head" in item.fixturenames}
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in sweeps, item.path not in slow))


@pytest.fixture
def one_thread():
    """Train on one thread: tiny tensors gain nothing from more, and the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_garbage():
    """Give back what earlier tests have left in memory: else that is done at any moment, also
    between two looks at how much is taken."""
    from sweeps.engine.trial import free_memory  # brings Ray

    free_memory()


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    """A cache for decoded recordings, so that each data set is decoded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """A folder of six recordings of 1.5 s: noisy chords, each on a pitch of its own."""
    folder = tmp_path_factory.mktemp("recordings")
    time_s = np.arange(SAMPLE_RATE_HZ * 3 // 2) / SAMPLE_RATE_HZ
    for number in range(6):
        hz = 110 * 1.5**number
        chord = sum(np.sin(2 * np.pi * hz * k * time_s) / k for k in (1, 2, 3, 5))
        noise = np.random.default_rng(number).normal(0, 0.02, len(time_s))
        soundfile.write(folder / f"{number}.wav", 0.2 * chord + noise, SAMPLE_RATE_HZ, "PCM_16")
    return folder


@pytest.fixture(scope="session")
def data(recordings, shared_cache):
    """The data set of those recordings."""
    return open_data(str(recordings), shared_cache)


@pytest.fixture
def tiny_config(recordings, shared_cache):
    """Return a function from changed fields to a configuration that trains in a second."""

    def build(**changes):
        named = {name.replace("__", "."): value for name, value in changes.items()}
        net = TINY[named.get("model.family", "frames")]
        fields = {
            "data.path": str(recordings),
            "data.cache": str(shared_cache),
            "data.clip_samples": 4096,
            "data.batch_size": 2,
            **net,
            "model.kernel_size": 3,
            "model.output": "difference",
            "validation.clips": 2,
            "validation.clip_samples": 8192,
            "steps": 4,
            "report_every": 2,
            "device": "cpu",
        }
        return TrainConfig.from_fields(fields | named)

    return build


@pytest.fixture
def mount_disk(tmp_path_factory):
    """Return a function that mounts a real file system of so many megabytes, to be filled."""
    with contextlib.ExitStack() as mounts:

        def mount(*, megabytes):
            disk = mounted(tmp_path_factory.mktemp("small disk"), megabytes=megabytes)
            try:
                return mounts.enter_context(disk)
            except OSError as error:
                pytest.skip(f"mounting a small disk needs root on Linux: {error}")

        yield mount


@pytest.fixture(scope="session")
def planted_secrets() -> dict[str, str]:
    """Secrets that the Ray head and its jobs have in their environment, by variable."""
    names = ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD")
    return {name: secrets.token_urlsafe(24) for name in names}


@pytest.fixture(scope="session")
def local_head(planted_secrets: dict[str, str]) -> Iterator[LocalHead]:
    """Start one Ray head of two CPUs for all tests of a worker that need one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
        for name, value in planted_secrets.items():
            patch.setenv(name, value)
        with LocalHead(num_cpus=2) as head:
            patch.undo()
            yield head


@pytest.fixture
def trial_workers(local_head):
    """Return a function that finds the processes on the head that trials are trained in."""
    return lambda: trial_workers_below(psutil.Process(local_head._process.pid))


@pytest.fixture
def driven(local_head, recordings, tmp_path):
    """Return a function that builds a sweep of processes, on a storage root of a name."""
    from tests_support.driven_sweep import DrivenSweep  # brings MLflow

    with contextlib.ExitStack() as running:

        def build(name, **more):
            sweep = DrivenSweep(
                storage=more.pop("storage", tmp_path / name),
                recordings=more.pop("recordings", recordings),
                environment=local_head.client_environment,
                **more,
            )
            return running.enter_context(sweep)

        yield build


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Run PostgreSQL, an object store and MLflow over both, for all tests of a worker."""
    with serve_stores(tmp_path_factory.mktemp("stores")) as served:
        yield served


@pytest.fixture
def client(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be a client of the stores."""
    for name, value in stores.client_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", stores.env["HOME"])
