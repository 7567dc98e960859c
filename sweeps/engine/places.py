"""Paths and database URLs as a user gives them, made absolute: a job runs elsewhere."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.credentials import refuse_secret

if TYPE_CHECKING:
    from sweeps.engine.root import Root

_SQLITE = "sqlite:///"


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a user says that sweeps and their records are."""

    storage: str
    study_storage: str | None = None
    """None: the storage root's own."""
    tracking_uri: str | None = None
    """None: the storage root's own. Given, a trial's record is MLflow's."""
    relative_to: Path = field(default_factory=Path.cwd)

    def root(self, *, create: bool = False) -> "Root":
        """Open the storage root. Raises ValueError for what is none."""
        from sweeps.engine.root import Root  # brings Optuna, which --help does not wait for

        return Root.open(self.storage, relative_to=self.relative_to, create=create)

    def study_url(self) -> str:
        """Return the URL of the studies' database, which must exist when it is a file."""
        return self._database("study-storage", self.study_storage or self.root().study_url)

    def tracking_url(self) -> str:
        """Return the URL of MLflow's store, which must exist when it is a file."""
        return self._database("tracking-uri", self.tracking_uri or self.root().tracking_uri)

    def _database(self, name: str, url: str) -> str:
        return resolve_database(name, url, relative_to=self.relative_to, must_exist=True)


def resolve_path(field: str, text: str, *, relative_to: Path) -> Path:
    """Return the absolute path of a text. Raises ValueError naming the field."""
    if not text.strip():
        raise ValueError(f"{field}={text!r}; must be a path, not empty")
    try:
        return (relative_to / Path(text).expanduser()).resolve()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{field}={text}; must be a path that exists here: {error}") from error


def resolve_database(field: str, url: str, *, relative_to: Path, must_exist: bool) -> str:
    """Return a URL with the file of a SQLite one absolute.

    Raises ValueError naming the field where the file must exist and does not, or the URL has a
    password in it.
    """
    refuse_secret(field, url)
    if not url.startswith(_SQLITE):
        return url
    file = resolve_path(field, url.removeprefix(_SQLITE), relative_to=relative_to)
    if must_exist and not file.is_file():
        raise ValueError(f"{field}={url}; must be a database that a sweep has written: no {file}")
    return f"{_SQLITE}{file}"
