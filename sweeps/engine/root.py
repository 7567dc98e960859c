"""The storage root: the folder in which trials, locks and decoded recordings lie.

What is here makes do without Optuna and MLflow: a worker opens the root too.
"""

import contextlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import tenacity
from filelock import FileLock

from cluster.credentials import refuse_secret
from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.places import resolve_path
from trainer.fields import require
from trainer.journal import Row, read_journal
from trainer.record import FILE_NAME as RECORD_FILE
from trainer.record import Record
from trainer.whole_file import replace_whole

OUTCOME_FILE = "outcome.json"

BEST = "best:"
"""What stands before a sweep's name to mean its best trial."""

STORE_PATIENCE_S = 600.0
"""So long a trial waits for its store before it begins and after it has ended."""
_LONGEST_PAUSE_S = 10

logger = logging.getLogger(__name__)


class StoreAway(OSError):
    """A storage root on another host does not answer, or does not take what it is given."""


class TakenOver(Exception):
    """Another host has begun to train a trial that this one trains: it was given up for lost."""


@dataclass(frozen=True, kw_only=True)
class Root:
    """A storage root that exists. Those elsewhere raise StoreAway where they do not answer."""

    path: Path

    seconds_between_looks: ClassVar[float] = 0.5
    """For who watches whether a sweep is asked to stop."""

    @staticmethod
    def open(storage: str, *, relative_to: Path, create: bool) -> "Root":
        """Find the root: a folder, or a URL of an object store, which is mirrored on this host.

        Raises ValueError for a file, a store that does not answer, or (unless `create`) nothing.
        """
        refuse_secret("storage", storage)
        if "://" in storage:
            from sweeps.engine.mirrored_root import MirroredRoot  # brings pyarrow, which is slow

            return MirroredRoot.open_url(storage, create=create)
        path = resolve_path("storage", storage, relative_to=relative_to)
        if create:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = error.strerror or error
                raise ValueError(f"storage={path}; must be a folder: {reason}") from error
        elif not path.is_dir():
            raise ValueError(f"storage={path}; must be a folder that a sweep has written to")
        return Root(path=path)

    @property
    def place(self) -> str:
        """Return what other hosts open this root by."""
        return str(self.path)

    @property
    def trials(self) -> Path:
        """Return the folder of the trials' folders."""
        return self.path / "trials"

    @property
    def cache(self) -> Path:
        """Return the folder of decoded recordings."""
        return self.path / "cache"

    @property
    def artifacts(self) -> str:
        """Return the URI of where MLflow's artifacts go, unless it has a server that knows."""
        return (self.path / "mlflow-artifacts").as_uri()

    @property
    def study_url(self) -> str:
        """Return the study's own store."""
        return f"sqlite:///{self.path / 'optuna.db'}"

    @property
    def tracking_uri(self) -> str:
        """Return MLflow's own store."""
        return f"sqlite:///{self.tracking_file}"

    @property
    def tracking_file(self) -> Path:
        """Return the file of MLflow's own store."""
        return self.path / "mlflow.db"

    def trial_folder(self, fingerprint: str) -> Path:
        """Return a trial's folder.

        Raises ValueError for what is no fingerprint, and for a link that leads out of the root.
        """
        folder = self.trials / check_fingerprint(fingerprint)
        if not folder.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(f"trial={fingerprint}; must lie in {self.path}: {folder} is a link")
        return folder

    def fetch(self, fingerprint: str, *, weights: bool = False) -> Path:
        """Return a trial's folder with its record, journal, outcome and, if asked for, weights."""
        return self.trial_folder(fingerprint)

    def fetch_to_train(self, fingerprint: str) -> Path:
        """Return a trial's folder with all that training goes on from, for who holds the trial."""
        return self.trial_folder(fingerprint)

    def share(self, fingerprint: str, *, only: str | None = None, patience_s: float = 0.0) -> None:
        """Let other hosts have what is in a trial's folder, or one file of it.

        Raises StoreAway having tried for so long, and TakenOver where all is theirs by now.
        """

    def measure(self, fingerprint: str, names: Iterable[str]) -> int:
        """Return how many bytes such files of a trial take."""
        files = [self.trial_folder(fingerprint) / name for name in names]
        return sum(file.stat().st_size for file in files if file.is_file())

    def discard(self, fingerprint: str, names: Iterable[str]) -> None:
        """Delete such files of a trial."""
        for name in names:
            (self.trial_folder(fingerprint) / name).unlink(missing_ok=True)

    def free_bytes(self) -> float:
        """Return how much more fits."""
        return shutil.disk_usage(self.path).free

    @contextlib.contextmanager
    def lend_scratch(self) -> Iterator[dict[str, Any]]:
        """Make a place for what Tune keeps of a sweep, seen by all hosts; delete it at the end.

        Yields the arguments of Tune's RunConfig that name it.
        """
        scratch = tempfile.mkdtemp(prefix="ray-", dir=self.path)
        try:
            yield {"storage_path": scratch}
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def ask_to_stop(self, sweep: str) -> None:
        """Ask a sweep's trials on all hosts to checkpoint and end."""
        self._stop_file(sweep).touch()

    def forget_stop(self, sweep: str) -> None:
        """Take that back."""
        self._stop_file(sweep).unlink(missing_ok=True)

    def is_asked_to_stop(self, sweep: str) -> bool:
        """Return whether a sweep's trials should end."""
        return self._stop_file(sweep).exists()

    def list_trials(self) -> list[str]:
        """Return the fingerprints of all trials that have a folder."""
        folders = self.trials.iterdir() if self.trials.is_dir() else ()
        return [folder.name for folder in folders if is_fingerprint(folder.name)]

    def read_record_text(self, fingerprint: str) -> str:
        """Return a trial's record as it is in its file, empty when it never got to one."""
        if not is_fingerprint(fingerprint):
            return ""  # refused before it had a name, or a store's attempt to leave the root
        path = self.fetch(fingerprint) / RECORD_FILE
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def read_commit(self, fingerprint: str) -> str:
        """Return the commit that a trial was trained by, empty when it never got to a record."""
        text = self.read_record_text(fingerprint)
        return Record.from_text(text, source=fingerprint).commit if text else ""

    def read_rows(self, fingerprint: str, *, until: int | None = None) -> list[Row]:
        """Return a trial's journal, to a step, empty when it never got to one."""
        known = is_fingerprint(fingerprint)
        rows = read_journal(self.fetch(fingerprint)) if known else []
        return [row for row in rows if until is None or row["step"] <= until]

    def read_journey(self, fingerprint: str, *, until: int) -> tuple[list[Row], str]:
        """Return a trial's journal, to a step, and its record as text."""
        return self.read_rows(fingerprint, until=until), self.read_record_text(fingerprint)

    def keep_outcome(self, record: TrialRecord, *, study: str) -> None:
        """Note in a trial's folder that it finished, for other sweeps to take it over."""
        content = {"study": study, "record": record.to_json()}
        text = json.dumps(content, indent=2) + "\n"
        path = self.trial_folder(record.fingerprint) / OUTCOME_FILE
        try:
            replace_whole(path, lambda file: file.write(text.encode()))
            self.share(record.fingerprint, only=OUTCOME_FILE)
        except OSError as error:
            logger.warning("%s is not written, other sweeps will train it again: %s", path, error)

    def find_outcome(self, fingerprint: str) -> tuple[str, TrialRecord] | None:
        """Return (study, record) of a trial that finished under any sweep of this root."""
        path = self.fetch(fingerprint) / OUTCOME_FILE
        if not path.is_file():
            return None
        try:
            return _read_outcome(path, fingerprint)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            logger.warning("%s is damaged, its trial is trained again: %s", path, error)
            return None

    @contextlib.contextmanager
    def hold(self, name: str, *, timeout_s: float) -> Iterator[None]:
        """Keep other processes that hold the same name away.

        Raises filelock.Timeout, and ValueError for a name that no sweep and no trial can have.
        """
        if not re.fullmatch(r"[\w@.-]+", name):
            raise ValueError(f"sweep={name!r}; must be made of letters, digits and . _ - @")
        with FileLock(self._locks / f"{name}.lock", timeout=timeout_s):
            yield

    @property
    def _locks(self) -> Path:
        folder = self.path / "locks"
        folder.mkdir(exist_ok=True)
        return folder

    def _stop_file(self, sweep: str) -> Path:
        return self._locks / f"{sweep}.stop"


def open_patiently(place: str) -> Root:
    """Return the root that is open elsewhere already, waiting for one that does not answer."""
    return try_for(STORE_PATIENCE_S)(Root.open, place, relative_to=Path("/"), create=True)


def try_for(patience_s: float) -> tenacity.Retrying:
    """Return what calls a function again while the store is away, for so long."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(StoreAway),
        wait=tenacity.wait_exponential(multiplier=0.5, max=_LONGEST_PAUSE_S),
        stop=tenacity.stop_after_delay(patience_s),
        reraise=True,
    )


def is_fingerprint(trial: str) -> bool:
    """Whether a text could be a trial's name."""
    return len(trial) == 16 and set(trial) <= set("0123456789abcdef")


def check_fingerprint(trial: str) -> str:
    """Return a trial's name as it is. Raises ValueError for what is no fingerprint."""
    if not is_fingerprint(trial):
        raise ValueError(f"trial={trial}; must be 16 hex digits, or {BEST}SWEEP")
    return trial


def _read_outcome(path: Path, fingerprint: str) -> tuple[str, TrialRecord]:
    """Return (study, record). Raises ValueError, KeyError or TypeError for what none has noted."""
    content = json.loads(path.read_text(encoding="utf-8"))
    study, record = content["study"], TrialRecord.from_json(content["record"])
    require(isinstance(study, str), "study", study, "a study's name")
    require(record.fingerprint == fingerprint, "fingerprint", record.fingerprint, fingerprint)
    require(record.outcome == "finished", "outcome", record.outcome, "finished")
    return study, record
