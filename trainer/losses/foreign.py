"""Where nets lie that others have trained: which are there, and whether they are the right ones.

Nothing is fetched, and nothing large imported: this looks at files.
"""

import dataclasses
import functools
import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

from trainer.fields import require
from trainer.loss_config import CRITIC_TERMS, LossConfig

CDPAM_WEIGHTS = Path("CDPAM_trained/scratchJNDdefault_best_model.pth")
"""Where CDPAM's weights lie in its package."""

ENCODEC_CONFIG, ENCODEC_WEIGHTS = "config.json", "model.safetensors"
"""What a folder with EnCodec holds."""

_DAC_FILE = Path(".cache/descript/dac/weights_44khz_8kbps_0.0.1.pth")
"""Where the package `dac` downloads its weights to, below a home folder."""
_ENCODEC_MODEL = "facebook/encodec_48khz"
_HASH_DIGITS = 16


class NetAbsent(ValueError):
    """A foreign net's package or weights are not there; the text says what to do about it."""


def absent_terms(config: LossConfig) -> dict[str, str]:
    """Return, for each term that lacks its package or its weights, what to do about it, a line.

    All foreign terms are looked for, whether or not the loss has them.
    """
    found = {name: find(config) for name, find in _SEARCHES.items()}
    return {name: line for name, line in found.items() if isinstance(line, str)}


def pin_weights(config: LossConfig) -> LossConfig:
    """Return the loss with the hashes of the foreign weights that it is computed with.

    DAC's is the start of its file's SHA-256; EnCodec's is that of the SHA-256s of its two files.
    Raises ValueError where the weights of a term are not there, or are others than the given hash.
    """
    absent = absent_terms(config)
    for name, weight in config.weights.items():
        require(name not in absent, f"loss.{name}", weight, f"null here: {absent.get(name)}")
    hashes = {}
    if config.dac is not None:
        hashes["dac_weights_hash"] = _hash_file(find_dac(config)).hex()[:_HASH_DIGITS]
    if config.encodec is not None:
        folder = find_encodec(config)
        both = _hash_file(folder / ENCODEC_CONFIG) + _hash_file(folder / ENCODEC_WEIGHTS)
        hashes["encodec_weights_hash"] = hashlib.sha256(both).hexdigest()[:_HASH_DIGITS]
    for field, found in hashes.items():
        given = getattr(config, field)
        allowed = f"{found}, the weights that are there, or null to take them"
        require(given in (None, found), f"loss.{field}", given, allowed)
    return dataclasses.replace(config, **hashes)  # type: ignore[arg-type]


def find_cdpam() -> Path:
    """Return the file with CDPAM's weights; raise NetAbsent saying what to install."""
    package = importlib.util.find_spec("cdpam")
    if package is None or package.submodule_search_locations is None:
        raise NetAbsent("install the extra cdpam, whose package holds the weights")
    file = Path(package.submodule_search_locations[0]) / CDPAM_WEIGHTS
    if not file.is_file():
        raise NetAbsent("install the package cdpam anew: its weights are missing")
    return file


def find_dac(config: LossConfig) -> Path:
    """Return the file with DAC's weights; raise NetAbsent saying what to fetch."""
    _require_package("dac", "dac")
    if config.dac_weights is not None:
        return _require_files(Path(config.dac_weights), "loss.dac_weights")
    file = Path.home() / _DAC_FILE
    if not file.is_file():
        raise NetAbsent(
            f"run `python -m dac download`, which puts DAC's weights at {file}, "
            "or name their file with loss.dac_weights"
        )
    return file


def find_encodec(config: LossConfig) -> Path:
    """Return the folder with EnCodec; raise NetAbsent saying what to fetch."""
    _require_package("transformers", "encodec")
    files = (ENCODEC_CONFIG, ENCODEC_WEIGHTS)
    if config.encodec_weights is not None:
        return _require_files(Path(config.encodec_weights), "loss.encodec_weights", *files)
    from huggingface_hub import try_to_load_from_cache  # knows where its cache is, by environment

    cached = [try_to_load_from_cache(_ENCODEC_MODEL, name) for name in files]
    if not all(isinstance(path, str) for path in cached):
        raise NetAbsent(
            f"run `hf download {_ENCODEC_MODEL} {' '.join(files)}`, "
            "or name a folder with both files with loss.encodec_weights"
        )
    return Path(str(cached[0])).parent


def _require_package(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise NetAbsent(f"install the extra {extra}, which holds the net")


def _require_files(path: Path, field: str, *names: str) -> Path:
    """Return a file, or a folder with files of some names, `~` expanded."""
    path = path.expanduser()
    for wanted in [path / name for name in names] or [path]:
        if not wanted.is_file():
            raise NetAbsent(f"{field} names {path}, and there is no file {wanted}")
    return path


def _search(find: Callable[[LossConfig], object]) -> Callable[[LossConfig], str | None]:
    """Return a function that says what is missing for `find`; None where it finds it."""

    def search(config: LossConfig) -> str | None:
        try:
            find(config)
        except NetAbsent as error:
            return str(error)
        return None

    return search


_SEARCHES: Mapping[str, Callable[[LossConfig], str | None]] = {
    "cdpam": _search(lambda _: find_cdpam()),
    "dac": _search(find_dac),
    "encodec": _search(find_encodec),
    **dict.fromkeys(CRITIC_TERMS, _search(lambda _: _require_package("dac", "dac"))),
}


def _hash_file(file: Path) -> bytes:
    """Return the SHA-256 of a file, read once as long as its size and time stay."""
    status = file.stat()
    return _read_and_hash(file, status.st_size, status.st_mtime_ns)


@functools.cache
def _read_and_hash(file: Path, _size: int, _modified_ns: int) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
