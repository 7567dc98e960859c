"""`unshift describe`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeps.commands.options import json_option, places_options
from sweeps.engine.places import Places, resolve_path
from trainer.config import SAMPLE_RATE_HZ, TrainConfig
from trainer.sizes import SIZES, default_size, fields_of_size

if TYPE_CHECKING:
    from trainer.description import Description


@click.command()
@click.option("--trial", metavar="TRIAL|best:SWEEP", help="Start from a recorded trial.")
@click.option("--size", type=click.Choice(list(SIZES)), help="Or from a size; log with a GPU.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=JSON", help="Change any field.")
@click.option("--data", help="Folder of recordings, or demo.  [default: the trial's, or demo]")
@click.option("--time", "with_timing", is_flag=True, help="Train some steps here to measure them.")
@places_options
@json_option
def describe(
    trial: str | None,
    size: str | None,
    settings: tuple[str, ...],
    data: str | None,
    with_timing: bool,
    as_json: bool,
    **places: Any,
) -> None:
    """Show what a configuration is and what it will cost, without training it.

    All fields, the net's size, reach and arithmetic, and the peak memory of training by part:
    which layer would be too much.
    """
    if trial is not None and size is not None:
        raise click.UsageError("--trial and --size are two things to start from: give one")
    from trainer.command_line import parse_settings
    from trainer.description import describe as describe_config

    where = Places(**places)
    given: dict[str, object] = {} if data is None else {"data.path": data}
    given |= {"data.cache": str(where.root(create=True).cache)} | parse_settings(settings)
    if trial is None:
        fields = fields_of_size(size or _size_of_machine(), {"data.path": "demo"} | given)
    else:
        fields = _recorded_fields(trial, where) | given
    if fields["data.path"] != "demo":
        path = resolve_path("data.path", str(fields["data.path"]), relative_to=Path.cwd())
        fields["data.path"] = str(path)
    found = describe_config(TrainConfig.from_fields(fields), with_timing=with_timing)
    click.echo(json.dumps(found.to_json(), indent=2) if as_json else _page(found))


def _recorded_fields(trial: str, places: Places) -> dict[str, object]:
    from sweeps.engine.recorded import find_record

    record, _ = find_record(trial, places)
    here = {"data.fingerprint": record.data_fingerprint, "device": "auto"}
    return record.config.to_fields() | here


def _size_of_machine() -> str:
    import torch

    size, reason = default_size(has_gpu=torch.cuda.is_available())
    click.echo(f"size {size}: {reason}", err=True)
    return size


def _page(found: "Description") -> str:
    lines = {**_facts(found), "seconds per step": _tell_time(found)}
    width = max(map(len, lines))
    facts = [f"{name:<{width}}  {text}" for name, text in lines.items()]
    fields = found.config.to_fields()
    name_width = max(map(len, fields))
    config = [f"{name:<{name_width}}  {json.dumps(value)}" for name, value in fields.items()]
    absent = [f"loss.{term} cannot be trained here: {line}" for term, line in found.absent.items()]
    return "\n".join([*facts, "", *absent, _loss_table(found), "", _table(found), "", *config])


def _facts(found: "Description") -> dict[str, str]:
    config, memory = found.config, found.memory
    batch_s = config.data.batch_size * config.data.clip_samples / SAMPLE_RATE_HZ
    is_all = memory.tensor_bytes == memory.peak_bytes
    tensors = f"; {_bytes(memory.tensor_bytes)} of it tensors, about what a GPU would take"
    largest, size = next(iter(found.memory_of_net.items()), ("none", 0))
    return {
        "fingerprint": found.fingerprint,
        "net": f"{config.model.family}, {found.parameters / 1e6:.2f} M parameters",
        "receptive field": f"{found.receptive_field_ms:.0f} ms",
        "multiply-adds": f"{found.multiply_adds_per_second / 1e9:.2f} G per second of audio",
        "steps per epoch": f"{found.steps_per_epoch:.1f}, of {batch_s:.1f} s of audio each",
        "peak memory": f"about {_bytes(memory.peak_bytes)} on {found.device}"
        + ("" if is_all else tensors),
        "largest layer": f"{largest} with {_bytes(size)}",
        "on disk": f"{_bytes(found.checkpoint_bytes)} a trial",
    }


def _tell_time(found: "Description") -> str:
    timing = found.timing
    if timing is None:
        return "not measured: --time does"
    return (
        f"{timing.seconds_per_step:.3g}, {timing.data_wait_share:.0%} of it waiting for data; "
        f"a validation {timing.validation_seconds:.3g}; "
        f"peak memory measured {_bytes(timing.peak_memory_bytes)}"
    )


def _loss_table(found: "Description") -> str:
    from tabulate import tabulate

    weights = found.config.loss.weights
    rows = [
        (
            part,
            ", ".join(f"{weights[name]:g}" for name in part.split(", ") if name in weights),
            cost.parameters,
            f"{cost.multiply_adds_per_second / 1e9:.2f} G",
        )
        for part, cost in found.loss.items()
    ]
    header = ("loss", "weight", "parameters", "multiply-adds per second of audio")
    return tabulate(rows, header, colalign=("left", "right", "right", "right"), intfmt=",")


def _table(found: "Description") -> str:
    from tabulate import tabulate

    memory, parameters = found.memory.parts, found.parameters_by_part
    names = sorted(memory.keys() | parameters, key=lambda n: (-memory.get(n, 0), n))
    rows = [
        (name, parameters.get(name), _bytes(size), f"{size / found.memory.peak_bytes:.1%}")
        for name in names
        for size in [memory.get(name, 0)]
    ]
    header = ("at the peak", "parameters", "memory", "share")
    return tabulate(rows, header, colalign=("left", "right", "right", "right"), intfmt=",")


def _bytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
