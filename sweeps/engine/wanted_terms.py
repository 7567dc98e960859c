"""Which terms of the loss need what others have made, and are wanted by a sweep or absent here.

Files are looked for, none is read: this is asked of every node before a sweep is queued.
"""

import contextlib
from collections.abc import Iterable, Iterator

from search_spaces.space import Shared
from sweeps.engine.options import SweepOptions
from sweeps.engine.run import Sweep
from trainer.command_line import parse_settings
from trainer.config import TrainConfig
from trainer.loss_config import CRITIC_TERMS, FOREIGN_TERMS, LossConfig
from trainer.losses.foreign import absent_terms
from trainer.sizes import SIZES

_TERMS = (*FOREIGN_TERMS, *CRITIC_TERMS)
_PLACES = ("dac_weights", "encodec_weights")


def find_absent(options: SweepOptions) -> dict[str, str]:
    """Return what to do, in a line each, about the terms that cannot be trained on this machine."""
    fields = parse_settings(options.settings)
    given = {name: fields.get(f"loss.{name}") for name in _PLACES}
    places = {name: str(path) for name, path in given.items() if path is not None}
    return absent_terms(LossConfig(**places))  # type: ignore[arg-type]


def find_set(options: SweepOptions) -> set[str]:
    """Return the terms that all trials have by `--set`."""
    fields = parse_settings(options.settings)
    return {term for term in _TERMS if fields.get(f"loss.{term}") is not None}


def find_varied(sweeps: Iterable[Sweep], options: SweepOptions) -> set[str]:
    """Return the terms that spaces would leave out where they are absent."""
    shared = list(_shared(options))
    return {
        term for sweep in sweeps for each in shared for term in sweep.search_space(each).left_out
    }


def _shared(options: SweepOptions) -> Iterator[Shared]:
    """Yield what trials may share: of every size where that is decided by the machines."""
    fields = parse_settings(options.settings)
    for size in [options.size] if options.size else SIZES:
        with contextlib.suppress(ValueError):  # which the sweep itself will raise, of its size
            base = TrainConfig.from_fields({"data.path": "demo", **SIZES[size], **fields})
            yield Shared(size=size, fields=base.to_fields(), absent_terms=frozenset(_TERMS))
