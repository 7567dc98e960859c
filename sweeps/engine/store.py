"""The storage root: where a sweep's study, its trials and its record lie, and how they are found.

A sweep is known by its script's name. Under one name there may be several studies, because trials
on other recordings, of another size, length or seed cannot be compared: each such setting has its
own, and the name alone means the one that ran last.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study, StudySummary

from sweeps.engine.outcomes import TrialRecord
from trainer.journal import Row, read_journal

OUTCOME_FILE = "outcome.json"

_SWEEP, _SETTING, _TURN, _RUN = "sweep", "setting", "turn", "mlflow_run_id:"


@dataclass(frozen=True, kw_only=True)
class Root:
    """A storage root that exists."""

    path: Path

    @classmethod
    def open(cls, storage: str, *, relative_to: Path, create: bool) -> "Root":
        """Find the root. Raises ValueError for a URL, a file, or (unless `create`) nothing."""
        if "://" in storage:
            raise ValueError(f"storage={storage}; must be a folder: URLs are not supported yet")
        path = (relative_to / Path(storage).expanduser()).resolve()
        if path.exists() and not path.is_dir():
            raise ValueError(f"storage={path}; must be a folder")
        if create:
            path.mkdir(parents=True, exist_ok=True)
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
        return f"sqlite:///{self.path / 'mlflow.db'}"

    def trial_folder(self, fingerprint: str) -> Path:
        """Return a trial's folder. Raises ValueError for what is no fingerprint."""
        if len(fingerprint) != 16 or not set(fingerprint) <= set("0123456789abcdef"):
            raise ValueError(f"trial={fingerprint}; must be 16 hex digits, or best:SWEEP")
        return self.trials / fingerprint

    def read_rows(self, fingerprint: str) -> list[Row]:
        """Return a trial's journal, empty when it never got to one."""
        return read_journal(self.trials / fingerprint)

    def keep_outcome(self, record: TrialRecord, *, study: str) -> None:
        """Note in a trial's folder that it finished, and under which sweep."""
        content = {"study": study, "record": record.to_json()}
        path = self.trials / record.fingerprint / OUTCOME_FILE
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)

    def find_outcome(self, fingerprint: str) -> tuple[str, TrialRecord] | None:
        """Return (study, record) of a trial that finished under any sweep of this root."""
        path = self.trials / fingerprint / OUTCOME_FILE
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["study"], TrialRecord.from_json(content["record"])


def open_optuna(url: str) -> BaseStorage:
    """Open an Optuna store, made when it is not there. Raises ValueError naming the URL."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    engine: dict[str, Any] = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=engine)
    except Exception as error:  # noqa: BLE001 - SQLAlchemy's drivers raise what they like
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"study-storage={url}; must be a database URL: {reason}") from error


def open_study(storage: BaseStorage, name: str, setting: str, facts: Mapping[str, object]) -> Study:
    """Return the study of a sweep's setting, made with these facts when there is none yet.

    The first setting of a sweep gets the sweep's own name, others get `name@setting`.
    """
    known = _studies_of(storage, name)
    mine = [s.study_name for s in known if s.user_attrs[_SETTING] == setting]
    study_name = mine[0] if mine else f"{name}@{setting}" if known else name
    study = optuna.create_study(storage=storage, study_name=study_name, load_if_exists=True)
    turn = max((s.user_attrs[_TURN] for s in known), default=0) + 1
    for key, value in {_SWEEP: name, _SETTING: setting, **facts, _TURN: turn}.items():
        study.set_user_attr(key, value)
    return study


def find_study(storage: BaseStorage, sweep: str) -> Study:
    """Return the study called `name@setting`, or the one that ran last under the name `sweep`.

    Raises ValueError listing the sweeps there are.
    """
    summaries = optuna.get_all_study_summaries(storage)
    known = [s for s in summaries if _SWEEP in s.user_attrs]
    exact = [s for s in known if "@" in sweep and s.study_name == sweep]
    named = [s for s in known if s.user_attrs[_SWEEP] == sweep]
    candidates = exact or sorted(named, key=lambda s: s.user_attrs[_TURN])
    if not candidates:
        there = ", ".join(sorted({s.user_attrs[_SWEEP] for s in known})) or "none yet"
        raise ValueError(f"sweep={sweep}; must be one of the sweeps there are: {there}")
    return optuna.load_study(storage=storage, study_name=candidates[-1].study_name)


def keep_run_id(study: Study, fingerprint: str, run_id: str) -> None:
    """Note a trial's MLflow run. On the study, because ended trials take no more notes."""
    study.set_user_attr(_RUN + fingerprint, run_id)


def read_run_ids(study: Study) -> dict[str, str]:
    """Return each trial's MLflow run by fingerprint."""
    attributes = study.user_attrs
    return {k.removeprefix(_RUN): v for k, v in attributes.items() if k.startswith(_RUN)}


def _studies_of(storage: BaseStorage, name: str) -> list[StudySummary]:
    summaries = optuna.get_all_study_summaries(storage)
    return [s for s in summaries if s.user_attrs.get(_SWEEP) == name]
