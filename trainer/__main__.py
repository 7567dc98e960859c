"""`python -m trainer`: train once, here, with a progress bar."""

import sys
from pathlib import Path

import click

from trainer.command_line import OTHER_OUTCOME, parse_settings, run_command
from trainer.config import METRIC, SAMPLE_RATE_HZ, TrainConfig
from trainer.sizes import SIZES, default_size, fields_of_size


@click.command(context_settings={"show_default": True})
@click.option("--data", default="demo", help="Folder of recordings, or demo for synthesized ones.")
@click.option("--size", type=click.Choice(list(SIZES)), help="Net and budget; log with a GPU.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=JSON", help="Change any field.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep checkpoints and journal there.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out, if any.")
def main(
    data: str, size: str | None, settings: tuple[str, ...], out: Path | None, resume: bool
) -> None:
    """Train one net once, and show its validation beside do-nothing's score.

    Exits with 0 when it came to the last step, with 3 when it diverged.
    """
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the folder that holds the checkpoint")
    chosen = size or _default_size()
    fields = fields_of_size(chosen, {"data.path": data, **parse_settings(settings)})
    outcome = _train_and_show(TrainConfig.from_fields(fields), out, resume=resume)
    sys.exit(0 if outcome == "finished" else OTHER_OUTCOME)


def _default_size() -> str:
    import torch

    size, reason = default_size(has_gpu=torch.cuda.is_available())
    click.echo(f"size {size}: {reason}", err=True)
    return size


def _train_and_show(config: TrainConfig, out: Path | None, *, resume: bool) -> str:
    """Train, show how it went, and return the outcome."""
    from tqdm import tqdm

    from trainer.checkpoint import has_checkpoint
    from trainer.data import open_data
    from trainer.device import resolve_device
    from trainer.evaluate import ValidationSet, score_do_nothing
    from trainer.journal import Row
    from trainer.train import train

    data = open_data(config.data.path, config.data.cache)
    device = resolve_device(config.device)
    do_nothing = score_do_nothing(ValidationSet.build(data, config.validation, device))[METRIC]
    held_out = f"{config.validation.clips} clips of {len(data.validation)} held-out recordings"
    click.echo(f"do nothing: {do_nothing:.4f} on {held_out}", err=True)
    seconds = config.data.batch_size * config.data.clip_samples / SAMPLE_RATE_HZ
    resume_from = out if resume and out is not None and has_checkpoint(out) else None
    if resume and resume_from is None:
        click.echo(f"no checkpoint in {out} yet: training starts at step 0", err=True)
    with tqdm(total=config.steps, unit="step", file=sys.stderr) as bar:

        def show(row: Row) -> None:
            bar.update(int(row["step"]) - bar.n)
            bar.set_postfix(validation=row[METRIC], loss=row["train_loss"])

        result = train(config, report=show, folder=out, resume_from=resume_from)
    click.echo(
        f"{result.outcome} at step {result.step} ({seconds:.1f} s of audio each): "
        f"best validation {_shown(result.value)}, do nothing {do_nothing:.4f} {result.reason}"
    )
    return result.outcome


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    run_command(main)
