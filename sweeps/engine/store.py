"""The storage root: where a sweep's study, its trials and its record lie, and how they are found.

A sweep is known by its script's name. Under one name there may be several studies, because trials
on other recordings, of another size, length or seed cannot be compared: each such setting has its
own, and the name alone means the one that ran last.
"""

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study, StudySummary

from cluster.credentials import refuse_secret
from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.patient_storage import PatientStorage
from sweeps.engine.places import resolve_path
from trainer.config import METRIC
from trainer.journal import Row, read_journal
from trainer.record import FILE_NAME as RECORD_FILE
from trainer.record import Record
from trainer.whole_file import replace_whole

OUTCOME_FILE = "outcome.json"

BEST = "best:"
"""What stands before a sweep's name to mean its best trial."""

TURN = "turn"
"""The study's attribute that grows with every run of any sweep."""

STORE_REVISION = 1
"""Of what is kept of a study and its trials: to be raised when earlier code would misread it."""

_FACTS, _RUN = "facts", "mlflow_run_id:"

Facts = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Root:
    """A storage root that exists."""

    path: Path

    @classmethod
    def open(cls, storage: str, *, relative_to: Path, create: bool) -> "Root":
        """Find the root. Raises ValueError for a URL, a file, or (unless `create`) nothing."""
        refuse_secret("storage", storage)
        if "://" in storage:
            raise ValueError(f"storage={storage}; must be a folder: URLs are not supported yet")
        path = resolve_path("storage", storage, relative_to=relative_to)
        if create:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = error.strerror or error
                raise ValueError(f"storage={path}; must be a folder: {reason}") from error
        elif not path.is_dir():
            raise ValueError(f"storage={path}; must be a folder that a sweep has written to")
        return cls(path=path)

    @property
    def trials(self) -> Path:
        """Return the folder of the trials' folders."""
        return self.path / "trials"

    @property
    def cache(self) -> Path:
        """Return the folder of decoded recordings."""
        return self.path / "cache"

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

    def list_trials(self) -> list[str]:
        """Return the fingerprints of all trials that have a folder."""
        folders = self.trials.iterdir() if self.trials.is_dir() else ()
        return [folder.name for folder in folders if is_fingerprint(folder.name)]

    def read_record_text(self, fingerprint: str) -> str:
        """Return a trial's record as it is in its file, empty when it never got to one."""
        if not is_fingerprint(fingerprint):
            return ""  # refused before it had a name, or a store's attempt to leave the root
        path = self.trial_folder(fingerprint) / RECORD_FILE
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def read_commit(self, fingerprint: str) -> str:
        """Return the commit that a trial was trained by, empty when it never got to a record."""
        text = self.read_record_text(fingerprint)
        return Record.from_text(text, source=fingerprint).commit if text else ""

    def read_rows(self, fingerprint: str, *, until: int | None = None) -> list[Row]:
        """Return a trial's journal, to a step, empty when it never got to one."""
        known = is_fingerprint(fingerprint)
        rows = read_journal(self.trial_folder(fingerprint)) if known else []
        return [row for row in rows if until is None or row["step"] <= until]

    def keep_outcome(self, record: TrialRecord, *, study: str) -> None:
        """Note in a trial's folder that it finished, for other sweeps to take it over."""
        content = {"study": study, "record": record.to_json()}
        text = json.dumps(content, indent=2) + "\n"
        path = self.trial_folder(record.fingerprint) / OUTCOME_FILE
        try:
            replace_whole(path, lambda file: file.write(text.encode()))
        except OSError as error:
            logger.warning("%s is not written, other sweeps will train it again: %s", path, error)

    def find_outcome(self, fingerprint: str) -> tuple[str, TrialRecord] | None:
        """Return (study, record) of a trial that finished under any sweep of this root."""
        path = self.trial_folder(fingerprint) / OUTCOME_FILE
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return content["study"], TrialRecord.from_json(content["record"])
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("%s is damaged, its trial is trained again: %s", path, error)
            return None

    @contextlib.contextmanager
    def hold(self, name: str, *, timeout_s: float) -> Iterator[None]:
        """Keep other processes that hold the same name away.

        Raises filelock.Timeout, and ValueError for a name that no sweep and no trial can have.
        """
        if not re.fullmatch(r"[\w@.-]+", name):
            raise ValueError(f"sweep={name!r}; must be made of letters, digits and . _ - @")
        folder = self.path / "locks"
        folder.mkdir(exist_ok=True)
        with FileLock(folder / f"{name}.lock", timeout=timeout_s):
            yield


def is_fingerprint(trial: str) -> bool:
    """Whether a text could be a trial's name."""
    return len(trial) == 16 and set(trial) <= set("0123456789abcdef")


def check_fingerprint(trial: str) -> str:
    """Return a trial's name as it is. Raises ValueError for what is no fingerprint."""
    if not is_fingerprint(trial):
        raise ValueError(f"trial={trial}; must be 16 hex digits, or {BEST}SWEEP")
    return trial


def open_optuna(url: str, *, waits: bool = False) -> BaseStorage:
    """Open an Optuna store, made when it is not there; one that `waits` outlives its database's
    absence from then on.

    Raises ValueError naming the URL, also where its tables are of another version of Optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    engine: dict[str, Any] = {"pool_pre_ping": True}  # a restarted server knows no old connections
    if url.startswith("sqlite"):
        engine["connect_args"] = {"timeout": 60}
    try:
        return (PatientStorage if waits else RDBStorage)(url, engine_kwargs=engine)
    except Exception as error:  # noqa: BLE001 - SQLAlchemy's drivers raise what they like
        reason = str(error).split("\n", 1)[0]
        raise ValueError(
            f"study-storage={url}; must be a database URL, of a store that this Optuna reads: "
            f"{reason}"
        ) from error


def open_study(
    storage: BaseStorage, name: str, setting: str, make_facts: Callable[[], Facts]
) -> Study:
    """Return the study of a sweep's setting, made with new facts when there is none yet.

    The first setting of a sweep gets the sweep's own name, others get `name@setting`. One process
    at a time may call this on a storage.
    """
    summaries = optuna.get_all_study_summaries(storage)
    known = [s for s in summaries if _facts_of(s).get("sweep") == name]
    mine = [s.study_name for s in known if _facts_of(s)["setting"] == setting]
    study_name = mine[0] if mine else f"{name}@{setting}" if known else name
    own = {"sweep": name, "setting": setting, "revision": STORE_REVISION}
    facts = None if mine else {**make_facts(), **own}
    study = optuna.create_study(storage=storage, study_name=study_name, load_if_exists=True)
    if facts is not None:
        study.set_user_attr(_FACTS, facts)  # all at once: a study without them is not one yet
    read_facts(study)
    turn = max((s.user_attrs.get(TURN, 0) for s in summaries), default=0) + 1
    study.set_user_attr(TURN, turn)
    return study


def find_study(storage: BaseStorage, sweep: str) -> Study:
    """Return the study of `name@setting`, or the one that ran last under the name `sweep`.

    Raises ValueError listing the sweeps there are.
    """
    known = [s for s in optuna.get_all_study_summaries(storage) if _facts_of(s)]
    fitting = [s for s in known if sweep in _names_of(s)]
    candidates = sorted(fitting, key=lambda s: s.user_attrs.get(TURN, 0))
    if not candidates:
        there = ", ".join(sorted({name for s in known for name in _names_of(s)})) or "none yet"
        raise ValueError(f"sweep={sweep}; must be one of the sweeps there are: {there}")
    return optuna.load_study(storage=storage, study_name=candidates[-1].study_name)


def find_studies(storage: BaseStorage) -> list[Study]:
    """Return all studies of sweeps, the one that ran last at the end."""
    known = [s for s in optuna.get_all_study_summaries(storage) if _facts_of(s)]
    ordered = sorted(known, key=lambda s: s.user_attrs.get(TURN, 0))
    return [optuna.load_study(storage=storage, study_name=s.study_name) for s in ordered]


def read_facts(study: Study) -> Facts:
    """Return what was noted of a study when it was made: its sweep, setting and do-nothing.

    Raises ValueError for a study of a later revision, or with facts that cannot be.
    """
    facts: Facts = study.user_attrs[_FACTS]
    _check_facts(facts, study.study_name)
    return facts


def keep_run_id(study: Study, fingerprint: str, run_id: str) -> None:
    """Note a trial's MLflow run. On the study, because ended trials take no more notes."""
    study.set_user_attr(_RUN + fingerprint, run_id)


def read_run_ids(study: Study) -> dict[str, str]:
    """Return each trial's MLflow run by fingerprint."""
    attributes = study.user_attrs
    return {k.removeprefix(_RUN): v for k, v in attributes.items() if k.startswith(_RUN)}


def _check_facts(facts: Facts, study: str) -> None:
    revision = facts.get("revision", 1)  # the first had no number
    if type(revision) is not int or not 1 <= revision <= STORE_REVISION:
        raise ValueError(
            f"study={study}; must be of revision 1 to {STORE_REVISION}, is of {revision!r}: "
            "a newer unshift has written it"
        )
    do_nothing = facts.get("do_nothing")
    if not (isinstance(do_nothing, dict) and type(do_nothing.get(METRIC)) in (int, float)):
        raise ValueError(f"study={study}; must have do-nothing's {METRIC}, has {do_nothing!r}")


def _names_of(summary: StudySummary) -> tuple[str, str]:
    """Return the sweep's name, which settings share, and the name with the setting."""
    facts = _facts_of(summary)
    return facts["sweep"], f"{facts['sweep']}@{facts['setting']}"


def _facts_of(summary: StudySummary) -> Facts:
    """Return a study's facts, empty where it is no sweep's."""
    facts: Any = summary.user_attrs.get(_FACTS)
    is_sweep = isinstance(facts, dict) and all(
        isinstance(facts.get(name), str) for name in ("sweep", "setting")
    )
    return dict(facts) if is_sweep else {}
