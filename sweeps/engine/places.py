"""Paths and database URLs as a user gives them, made absolute: a job runs elsewhere."""

from pathlib import Path

_SQLITE = "sqlite:///"


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

    Raises ValueError naming the field where the file must exist and does not.
    """
    if not url.startswith(_SQLITE):
        return url
    file = resolve_path(field, url.removeprefix(_SQLITE), relative_to=relative_to)
    if must_exist and not file.is_file():
        raise ValueError(f"{field}={url}; must be a database that a sweep has written: no {file}")
    return f"{_SQLITE}{file}"
