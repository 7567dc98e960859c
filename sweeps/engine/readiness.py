"""`python -m sweeps.engine.readiness`: whether a sweep could run on this node, in one line of JSON.

`unshift submit` runs it as a small job on the nodes of a cluster. Nothing heavy is imported: a
sweep's own imports take longer than all of this.
"""

import contextlib
import json
import os
import runpy
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

import cluster.environment
from cluster.package import RECORDINGS
from cluster.tracking_server import find_fault
from sweeps.engine.arguments import read_arguments
from sweeps.engine.root import Root
from sweeps.engine.run import Sweep
from sweeps.engine.wanted_terms import find_absent, find_set, find_varied

ANSWER = "unshift-readiness: "
"""What the line of the answer begins with."""
FREE_BYTES = 2_000_000_000
"""Checkpoints and weights of some trials of size log."""
CONNECT_TIMEOUT_S = 5
TAKE_TIMEOUT_S = 30.0
"""All nodes are asked at the same time: the driver's may be slower than this one."""
_SECONDS_BETWEEN_LOOKS = 0.2


@click.command()
@click.argument("script", type=click.Path())
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--expect", multiple=True, metavar="PACKAGE==VERSION")
@click.option("--leave", multiple=True, help="Names to leave in the storage root for others.")
@click.option("--take", default="", help="A name that the driver's node leaves there.")
def main(
    script: str,
    arguments: tuple[str, ...],
    expect: tuple[str, ...],
    leave: tuple[str, ...],
    take: str,
) -> None:
    """Print what is wrong on this node for SCRIPT with ARGUMENTS, of a trial, or of the driver.

    With --take, of a trial; else of the driver too. Beside the faults are the terms of the loss
    that cannot be trained here, with what to do, and those that a driver here would want.
    """
    options = read_arguments(arguments)
    absent = find_absent(options)
    sweeps: list[Sweep] = []
    checks: list[Callable[[], Iterator[str]]] = [
        lambda: _check_versions(expect),
        lambda: _check_data(options.data),
    ]
    if take:
        checks.append(lambda: _check_shared(options.storage, take))
    else:
        checks += [
            lambda: _check_script(Path(script), sweeps),
            lambda: tell_absent(absent, find_set(options)),
            lambda: _check_storage(options.storage, leave),
            lambda: _check_database("study-storage", options.study_storage),
            lambda: _check_tracking(options.tracking_uri),
        ]
    faults = [fault for check in checks for fault in check()]
    wanted = find_set(options) | find_varied(sweeps, options) - absent.keys()
    told = {"faults": faults, "absent": absent, "wanted": sorted(wanted)}
    click.echo(ANSWER + json.dumps(told))


def tell_absent(absent: Mapping[str, str], wanted: Iterable[str]) -> Iterator[str]:
    """Yield a line for each wanted term of the loss that is absent on a node."""
    for term in sorted(absent.keys() & wanted):
        yield f"loss.{term} cannot be trained there: {absent[term]}"


def _check_versions(expected: Sequence[str]) -> Iterator[str]:
    for each in expected:
        name, _, wanted = each.partition("==")
        try:
            there = version(name).partition("+")[0]
        except PackageNotFoundError:
            there = "missing"
        if there != wanted:
            yield f"{name} is {there} there, and {wanted} here: build its image from this lock"


def _check_script(script: Path, sweeps: list[Sweep]) -> Iterator[str]:
    """Import a script, and add the sweeps that it makes."""
    sys.path.insert(0, str(script.parent.absolute()))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            made = runpy.run_path(str(script), run_name="readiness")
        sweeps += [each for each in made.values() if isinstance(each, Sweep)]
    except Exception as error:  # noqa: BLE001 - whatever a script raises is the answer
        yield f"{script} cannot be imported there: {type(error).__name__}: {_first_line(error)}"
    finally:
        sys.path.pop(0)


def _check_data(data: str) -> Iterator[str]:
    if data == "demo":
        return
    folder = Path(data).expanduser()
    try:
        names = (name for _, _, files in os.walk(folder) for name in files)
        is_there = folder.is_dir() and any(name.lower().endswith(RECORDINGS) for name in names)
    except OSError:
        is_there = False
    if not is_there:
        yield f"data={data}; must be a folder of recordings there: mount it, or copy it there"


def _check_storage(storage: str, leave: Sequence[str]) -> Iterator[str]:
    name = f"check-{uuid.uuid4().hex}"
    try:
        root = Root.open(storage, relative_to=Path("/"), create=True)
        root.ask_to_stop(name)  # writes, as a sweep does, where all hosts look
        is_written = root.is_asked_to_stop(name)
        root.forget_stop(name)
        for each in leave:
            root.ask_to_stop(each)
        free = root.free_bytes()
    except (OSError, ValueError) as error:
        yield _as_fault("storage", storage, error)
        return
    if not is_written:
        yield f"storage={storage}; must keep what is written there"
    if free < FREE_BYTES:
        yield (
            f"storage={storage}; must have {FREE_BYTES / 1e9:.0f} GB free, has {free / 1e9:.1f}: "
            "make room, or give another --storage"
        )


def _check_shared(storage: str, name: str) -> Iterator[str]:
    try:
        root = Root.open(storage, relative_to=Path("/"), create=True)
        deadline = time.monotonic() + TAKE_TIMEOUT_S
        while not (is_seen := root.is_asked_to_stop(name)) and time.monotonic() < deadline:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        root.forget_stop(name)
    except (OSError, ValueError) as error:
        yield _as_fault("storage", storage, error)
        return
    if not is_seen:
        yield (
            f"storage={storage}; must be a folder that all machines share: what the head writes "
            "there is not seen: mount one, or give a URL (s3://…)"
        )


def _check_database(field: str, url: str | None) -> Iterator[str]:
    if url is None or url.startswith("sqlite:"):
        return  # in the storage root, or beside it
    import sqlalchemy

    is_server = url.startswith("postgresql")
    arguments = {"connect_timeout": CONNECT_TIMEOUT_S} if is_server else {}
    try:
        with sqlalchemy.create_engine(url, connect_args=arguments).connect():
            pass
    except Exception as error:  # noqa: BLE001 - SQLAlchemy's drivers raise what they like
        yield _as_fault(field, url, error)


def _check_tracking(uri: str | None) -> Iterator[str]:
    if uri is None or not uri.startswith(("http://", "https://")):
        yield from _check_database("tracking-uri", uri)
    elif fault := find_fault(uri):
        yield f"tracking-uri={uri}; {fault}: give it there as docs/cluster.md says"


def _as_fault(field: str, text: str, error: Exception) -> str:
    said = _first_line(error)
    return said if said.startswith(f"{field}=") else f"{field}={text}; cannot be used there: {said}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    cluster.environment.apply()
    main()
