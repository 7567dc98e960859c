"""Dotted fields of nested dataclasses: their names, types and values, and checks that name them."""

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping

_T = typing.TypeVar("_T")

_LONGEST_SHOWN = 200
_LARGEST_SIZE = 1e30
"""Of a number: float32 ends at 3e38, and optimizers multiply rates before they are cast to it."""


def require(holds: bool, name: str, value: object, allowed: str) -> None:
    """Raise ValueError naming a field, its value and what is allowed, unless that holds."""
    if not holds:
        raise ValueError(f"{name}={_in_one_line(value)}; must be {allowed}")


def require_positive(name: str, value: float | None) -> None:
    """Raise ValueError unless a number that is given is above zero and finite."""
    require(value is None or (value > 0 and math.isfinite(value)), name, value, "> 0")


def require_from_zero(name: str, value: float | None) -> None:
    """Raise ValueError unless a number that is given is zero or above, and finite."""
    require(value is None or (value >= 0 and math.isfinite(value)), name, value, ">= 0")


def leaf_types(cls: type, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted name and the type of each field that is not a dataclass itself."""
    for name, kind in typing.get_type_hints(cls).items():
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from leaf_types(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, kind


def leaf_values(config: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted name and the value, in JSON's types, of each such field."""
    for part in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, part.name)
        if dataclasses.is_dataclass(value):
            yield from leaf_values(value, f"{prefix}{part.name}.")
        else:
            yield prefix + part.name, list(value) if isinstance(value, tuple) else value


def convert(name: str, value: object, kind: object) -> object:
    """Return a JSON value as the field's own type, or raise ValueError saying what that is."""
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        require(value in choices, name, value, f"one of {', '.join(map(str, choices))}")
        return value
    if kind == tuple[int, ...]:
        ok = isinstance(value, list | tuple) and all(type(v) is int for v in value)
        require(ok, name, value, "a list of whole numbers")
        for number in typing.cast("list[int]", value):
            _require_believable(name, number)
        return tuple(typing.cast("list[int]", value))
    alternatives = typing.get_args(kind)
    if type(None) in alternatives:
        if value is None:
            return None
        return convert(name, value, next(k for k in alternatives if k is not type(None)))
    if kind is float:
        require(type(value) in (int, float), name, value, "a number")
        real = typing.cast("float", value)
        require(not abs(real) > _LARGEST_SIZE, name, value, f"at most {_LARGEST_SIZE:g} in size")
        return float(real)
    require(type(value) is kind, name, value, f"of type {getattr(kind, '__name__', kind)}")
    if kind is int:
        _require_believable(name, typing.cast("int", value))
    return value


def build(cls: type[_T], values: Mapping[str, object], *, prefix: str = "") -> _T:
    """Build a nested dataclass from dotted fields of the right types."""
    arguments: dict[str, object] = {}
    for name, kind in typing.get_type_hints(cls).items():
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            arguments[name] = build(kind, values, prefix=f"{prefix}{name}.")
        elif prefix + name in values:
            arguments[name] = values[prefix + name]
    return cls(**arguments)


def _require_believable(name: str, value: int) -> None:
    require(abs(value) < 2**64, name, value, "below 2**64")


def _in_one_line(value: object) -> str:
    """Return a value as the user wrote it, unless that would be long or break the line."""
    text = str(list(value) if isinstance(value, tuple) else value)
    if not text.isprintable():
        text = ascii(text)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
