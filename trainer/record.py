"""The record of a trial: `config.json`, written before step 0, all that repeating it needs."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.config import TRAINER_REVISION, TrainConfig
from trainer.fields import require
from trainer.whole_file import replace_whole

FILE_NAME = "config.json"

Environment = dict[str, object]

ENVIRONMENT_KEYS = frozenset(
    {"device_kind", "device_name", "threads", "python", "platform", "versions"}
)
"""What must be equal for a trial to repeat to the last bit."""


_KINDS = {"fingerprint": str, "data_fingerprint": str, "trainer_revision": int, "commit": str}


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was run, on what, and where."""

    config: TrainConfig
    data_fingerprint: str
    commit: str
    environments: tuple[Environment, ...] = ()
    """One for each machine it ran on in turn, with the step it took over at (`from_step`)."""
    trainer_revision: int = TRAINER_REVISION
    told_fingerprint: str | None = None
    """What a record of another revision calls its trial: fields may have come or gone since."""

    @property
    def fingerprint(self) -> str:
        """Return the trial's name, that of its folder."""
        if self.told_fingerprint is not None:
            return self.told_fingerprint
        return self.config.fingerprint(self.data_fingerprint, revision=self.trainer_revision)

    def to_text(self) -> str:
        """Return the content of its file."""
        content = {
            "fingerprint": self.fingerprint,
            "data_fingerprint": self.data_fingerprint,
            "trainer_revision": self.trainer_revision,
            "commit": self.commit,
            "environments": self.environments,
            "config": self.config.to_fields(),
        }
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def from_text(cls, text: str, *, source: object) -> "Record":
        """Read the content of a file, also of an earlier revision: fields that it did not have yet
        get their defaults. Raises ValueError naming the `source` when it is damaged."""
        try:
            content = json.loads(text)
            _check_environments(content["environments"])
            revision, fingerprint = content["trainer_revision"], content["fingerprint"]
            for name, kind in _KINDS.items():
                require(
                    type(content[name]) is kind, name, content[name], f"of type {kind.__name__}"
                )
            known = f"1 to {TRAINER_REVISION}: a newer unshift has written it"
            require(1 <= revision <= TRAINER_REVISION, "trainer_revision", revision, known)
            named = re.fullmatch("[0-9a-f]{16}", fingerprint) is not None
            require(named, "fingerprint", fingerprint, "16 hex digits")
            return cls(
                config=TrainConfig.from_fields(_in_todays_words(content["config"], revision)),
                data_fingerprint=content["data_fingerprint"],
                commit=content["commit"],
                environments=tuple(content["environments"]),
                trainer_revision=revision,
                told_fingerprint=None if revision == TRAINER_REVISION else fingerprint,
            )
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"record={source}; must be a trial's {FILE_NAME}: {error}") from error


def _in_todays_words(fields: Mapping[str, object], revision: int) -> Mapping[str, object]:
    """Return the fields of an earlier revision by the names that they have now."""
    if revision == 1 and fields.get("model.family") == "spectrogram":
        return {**fields, "model.family": "frames"}
    return fields


def _check_environments(environments: list[Environment]) -> None:
    for place in environments:
        if not ENVIRONMENT_KEYS <= place.keys() or int(str(place["threads"])) < 1:
            raise ValueError(
                f"each of environments must have {', '.join(sorted(ENVIRONMENT_KEYS))}"
            )


def keep_record(folder: Path, record: Record, *, step: int) -> None:
    """Write a trial's record; on resuming, add where it goes on if that is another place."""
    before: tuple[Environment, ...] = ()
    if step > 0 and (folder / FILE_NAME).is_file():
        before = read_record(folder).environments
    here = {**record.environments[0], "from_step": step}
    is_same_place = bool(before) and before[-1] | {"from_step": step} == here
    environments = before if is_same_place else (*before, here)
    kept = Record(
        config=record.config,
        data_fingerprint=record.data_fingerprint,
        commit=record.commit,
        environments=environments,
    )
    replace_whole(folder / FILE_NAME, lambda file: file.write(kept.to_text().encode()))


def read_record(folder: Path) -> Record:
    """Read the record of a trial's folder. Raises ValueError when it is missing or damaged."""
    path = folder / FILE_NAME
    if not path.is_file():
        raise ValueError(f"record={path}; must be a trial's {FILE_NAME}, and there is none")
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise ValueError(f"record={path}; must be text in UTF-8") from error
    return Record.from_text(text, source=path)
