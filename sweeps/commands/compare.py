"""`unshift compare`."""

import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeps.commands.options import device_option, json_option
from trainer.command_line import WRONG_INPUT

if TYPE_CHECKING:
    from trainer.comparison import Comparison, Pairs

_place = click.Path(path_type=Path)
_Row = Mapping[str, Any]


@click.command()
@click.argument("reference", type=_place)
@click.argument("estimate", type=_place)
@click.option("--align", is_flag=True, help="Bring both to one sample rate and one beginning.")
@device_option
@json_option
def compare(reference: Path, estimate: Path, align: bool, device: str, as_json: bool) -> None:
    """Show every metric of ESTIMATE against REFERENCE, two recordings or two folders.

    Recordings of different sample rates or lengths are refused, or with --align their common part
    is compared. In folders, recordings of one name belong together, whatever its ending; when one
    of a pair cannot be compared the others are, and the exit status is 2.
    """
    from trainer.comparison import compare_recordings, pair_recordings
    from trainer.device import resolve_device

    for name, place in (("reference", reference), ("estimate", estimate)):
        if not place.exists():
            raise ValueError(f"{name}={place}; must be a recording or a folder, and is not there")
    if reference.is_dir() != estimate.is_dir():
        both = " and ".join("folder" if p.is_dir() else "file" for p in (reference, estimate))
        raise ValueError(f"reference and estimate={both}; must be two recordings or two folders")
    measure = functools.partial(compare_recordings, align=align, device=resolve_device(device))
    if not reference.is_dir():
        _show_one(measure(reference, estimate), as_json)
        return
    pairs = pair_recordings(reference, estimate)
    rows = _compare_pairs(pairs, measure)
    _show_many(rows, as_json)
    sys.exit(0 if len(rows) == len(pairs.matched) else WRONG_INPUT)


def _compare_pairs(pairs: "Pairs", measure: Callable[[Path, Path], "Comparison"]) -> list[_Row]:
    """Return a row for each pair; warn of those that cannot be compared, and of lone files."""
    from tqdm import tqdm

    for path in pairs.unmatched:
        click.echo(f"WARNING: {path} has no recording of its name in the other folder", err=True)
    rows: list[_Row] = []
    for name, (reference, estimate) in tqdm(pairs.matched.items(), file=sys.stderr):
        try:
            rows.append({"name": name, **measure(reference, estimate).to_json()})
        except (ValueError, OSError) as error:
            tqdm.write(f"WARNING: {error}", file=sys.stderr)
    if not rows:
        raise ValueError(f"none of the {len(pairs.matched)} pairs could be compared")
    return rows


def _show_one(found: "Comparison", as_json: bool) -> None:
    from tabulate import tabulate

    from trainer.comparison import HIGHER_IS_BETTER

    if found.lag_samples is not None:
        _tell_lag(found.lag_samples)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, allow_nan=False))
        return
    rows = [
        [name, _shown(value), "higher" if name in HIGHER_IS_BETTER else "lower"]
        for name, value in found.metrics.items()
    ]
    click.echo(tabulate(rows, ["metric", "value", "better"], **_layout(3)))
    _explain_gaps(found.metrics)


def _show_many(rows: list[_Row], as_json: bool) -> None:
    from tabulate import tabulate

    from trainer.comparison import METRICS, mean_metrics

    means = mean_metrics(rows)
    if as_json:
        click.echo(json.dumps({**means, "files": rows}, indent=2, allow_nan=False))
        return
    columns = [*METRICS, *(["lag_samples"] if rows[0]["lag_samples"] is not None else [])]
    lines = [[row["name"], *(_shown(row[name]) for name in columns)] for row in rows]
    lines.append(["mean", *(_shown(means.get(name)) for name in columns)])
    click.echo(tabulate(lines, ["name", *columns], **_layout(len(columns) + 1)))
    click.echo("lower is better, but for si_sdr_db")
    _explain_gaps(means)


def _tell_lag(lag_samples: int) -> None:
    from trainer.config import SAMPLE_RATE_HZ

    lag_ms = 1000 * abs(lag_samples) / SAMPLE_RATE_HZ
    lag = f"{abs(lag_samples)} samples at 44.1 kHz ({lag_ms:.1f} ms)"
    direction = "later" if lag_samples >= 0 else "earlier"
    click.echo(f"aligned: the estimate is {lag} {direction}", err=True)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _layout(columns: int) -> dict[str, Any]:
    return {"disable_numparse": True, "colalign": ["left", *["right"] * (columns - 1)]}


def _explain_gaps(metrics: Mapping[str, float | None]) -> None:
    if metrics["cdpam"] is None:
        click.echo("cdpam is measured where the extra of that name is installed", err=True)
