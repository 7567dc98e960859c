"""Sweeps' studies: how they are kept and found, and what is noted of each beside its trials.

A sweep is known by its script's name. Under one name there may be several studies, because trials
on other recordings, of another size, length or seed cannot be compared: each such setting has its
own, and the name alone means the one that ran last.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study, StudySummary
from sqlalchemy.pool import NullPool

from sweeps.engine.database_server import is_on_server
from sweeps.engine.patient_storage import PatientStorage
from sweeps.engine.root import Root
from sweeps.engine.server_lock import ServerLock
from sweeps.engine.sole_writer import SoleWriterStorage
from trainer.config import METRIC

TURN = "turn"
"""The study's attribute that grows with every run of any sweep."""

STORE_REVISION = 1
"""Of what is kept of a study and its trials: to be raised when earlier code would misread it."""

_FACTS, _RUN = "facts", "mlflow_run_id:"

Facts = dict[str, Any]

logger = logging.getLogger(__name__)


def open_optuna(url: str, *, for_driver: bool = False) -> BaseStorage:
    """Open an Optuna store, made when it is not there. One for a driver, which alone writes to its
    study, outlives its database's absence from then on, and reads open trials once.

    Raises ValueError naming the URL, also where its tables are of another version of Optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    engine: dict[str, Any] = {"pool_pre_ping": True}  # a restarted server knows no old connections
    if not for_driver:
        engine["poolclass"] = NullPool  # looked into once: nothing stays open
    if url.startswith("sqlite"):
        engine["connect_args"] = {"timeout": 60}
    try:
        if for_driver:
            return SoleWriterStorage(PatientStorage(url, engine_kwargs=engine))
        return RDBStorage(url, engine_kwargs=engine)
    except Exception as error:  # noqa: BLE001 - SQLAlchemy's drivers raise what they like
        reason = str(error).split("\n", 1)[0]
        raise ValueError(
            f"study-storage={url}; must be a database URL, of a store that this Optuna reads: "
            f"{reason}"
        ) from error


@contextlib.contextmanager
def hold_name(root: Root, study_url: str, name: str, *, timeout_s: float = 0.0) -> Iterator[None]:
    """Keep others that hold the same name away, on whichever host: those that do not see one folder
    have one database.

    Raises filelock.Timeout, and ValueError for a name that no sweep can have, and for a database
    that does not answer.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(root.hold(name, timeout_s=timeout_s))
        if is_on_server(study_url):
            held.enter_context(ServerLock(study_url, name, timeout_s=timeout_s))
        yield


def open_study(
    storage: BaseStorage, name: str, setting: str, make_facts: Callable[[], Facts]
) -> Study:
    """Return the study of a sweep's setting, made with new facts when there is none yet.

    The first setting of a sweep gets the sweep's own name, others get `name@setting`. One process
    at a time, of all hosts, may call this on a storage.
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
