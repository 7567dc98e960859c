"""The research log, outputs 17 to 43, as data: each run, what was changed, what came of it.

Fields are the trainer's. One that the log does not tell stands in a run's `unknown` and has a
stand-in, so that the run can be trained: what the run before had, or the trainer's default.

How labels are read. Up to output30 a label stands above the text of its change, but 19 and 20 stand
below it; the verdict follows. Labels 31 and 35 to 37 stand below their change and above the
verdict, 32 to 34 above the change. From 38 on they stand below both: 38 is PSGD at 1e-3, 39 at
3e-4, 40 at 5e-4, 41 at 1e-4, 42 with momentum 0.8, 43 with 0.95. Two runs bear no label and are
numbered by counting: 21, the difference output, stands between 20 and 22, and 26, the lower rates,
between 25 and 27.

What is not in fields. Before output32 the log's loss is its spectral one, here `stft`. Run 17
low-passed its targets with 6 filters, 22 with 10; here it is one per shift up in each run. Run 19
fed cdpam at 44.1 kHz, which 20 corrected to 22.05, both loud enough to suggest the wrong scale;
here cdpam always has its own rate and scale, so the two are one configuration. Output21 is read as
20 but for its output, because only 22 goes "back to batch size 32"; 36 as mel alone, because 37
affords clips three times as long. `scale_vs_channels`, all ones wherever the log has it, it does
not explain; in all of its waveform nets the channels grow by the factors.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

Fields = Mapping[str, object]

NEVER_TOLD = (
    "damage.shifts",
    "optimizer.weight_decay",
    "optimizer.warmup_steps",
    "optimizer.schedule",
    "precision",
    "seed",
)
"""Of any run. (Muon's momentum is neither; it is in the `unknown` of all runs with Muon.)"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run of the log."""

    number: int
    parent: int | None
    """Number of the run that it was made from."""
    change: str
    """What was changed."""
    fields: Fields
    """All in which runs of the log differ, or in which the trainer's sizes do."""
    unknown: frozenset[str] = frozenset()
    """Fields that the log does not tell."""
    told: frozenset[str] = frozenset()
    """Fields that it tells here for the first time, though they were not changed."""
    observed: Mapping[str, object] = field(default_factory=dict)
    """What was measured; `stft` is the log's validation loss at `step`."""
    verdict: str = ""
    """The log's words, shortened; empty where it has none."""
    is_labelled: bool = True
    """Whether the log itself gives the run its number."""

    @property
    def label(self) -> str:
        """Return `output27`."""
        return f"output{self.number}"


_RATES = frozenset({"optimizer.lr", "optimizer.adamw_lr"})
_SHAPE = frozenset({"model.channels", "model.blocks", "model.factors"})
_CONDITIONAL = frozenset({"optimizer.adamw_lr", "loss.dac_blocks", "loss.dac_features"})
"""Fields that mean nothing beside some others; None takes them away."""

_FIRST = Entry(
    number=17,
    parent=None,
    change="targets low-passed where a shift up leaves nothing",
    fields={
        "data.clip_samples": 65_024,
        "data.batch_size": 32,
        "model.family": "spectrogram",
        "model.channels": (1, 32, 64, 128, 256),
        "model.blocks": (2, 2, 2, 2),
        "model.factors": (4, 2, 2, 2),
        "model.kernel_size": 7,
        "model.output": "direct",
        "loss.stft": 1.0,
        "loss.mel": None,
        "loss.l1": None,
        "loss.cdpam": None,
        "loss.dac": None,
        "optimizer.name": "muon_adamw",
        "optimizer.lr": 2e-3,
        "optimizer.adamw_lr": 3e-4,
        "optimizer.clip_norm": None,
    },
    unknown=_SHAPE | _RATES | {"model.kernel_size", "optimizer.momentum"},
)

_LATER = (  # `fields` are what differs from the parent's
    Entry(
        number=18,
        parent=17,
        change="l1 on the waveform",
        fields={"loss.stft": None, "loss.l1": 1.0},
        observed={"step": 10_000},
        verdict="much worse sounding audio, lots of background noise",
    ),
    Entry(
        number=19,
        parent=17,
        change="cdpam, with clips and batch halved to fit in memory",
        fields={
            "loss.stft": None,
            "loss.cdpam": 1.0,
            "data.clip_samples": 32_256,
            "data.batch_size": 16,
        },
        verdict="really bad results; cdpam expects 22050",
    ),
    Entry(
        number=20,
        parent=19,
        change="cdpam at its own sample rate",
        fields={},
        verdict="terrible, somehow sounds even worse, super loud",
    ),
    Entry(
        number=21,
        parent=20,
        change="estimate the difference",
        fields={"model.output": "difference"},
        unknown=frozenset({"loss.stft", "loss.cdpam", "data.clip_samples"}),
        verdict="worse, definitely worse",
        is_labelled=False,
    ),
    Entry(
        number=22,
        parent=17,
        change="original method with clips of 3/4 the length, 10 low-pass filters for 6",
        fields={"data.clip_samples": 48_640},
        verdict="not really any better",
    ),
    Entry(
        number=23,
        parent=22,
        change="a waveform net",
        fields={
            "model.family": "waveform",
            "model.channels": (1, 8, 64, 256, 512),
            "model.blocks": (2, 2, 3, 4),
            "model.factors": (8, 8, 4, 2),
            "model.kernel_size": 7,
            "data.clip_samples": 49_152,
        },
        unknown=frozenset({"data.clip_samples"}),
        observed={
            "step": 10_000,
            "stft": 0.5153,
            "stft of the spectrogram net": 0.491,
            "parameters": 21_500_000,
        },
        verdict="much faster, not too much worse than the spectrogram net",
    ),
    Entry(
        number=24,
        parent=23,
        change="kernel 41",
        fields={"model.kernel_size": 41},
        observed={"parameters added": 200_000},
        verdict="slightly worse",
    ),
    Entry(
        number=25,
        parent=24,
        change="more blocks",
        fields={"model.blocks": (4, 4, 4, 4)},
        told=_RATES,
        observed={"memory": "<5 GB"},
        verdict="val loss rises after 5k steps, hardly any progress after 1k",
    ),
    Entry(
        number=26,
        parent=25,
        change="lower rates",
        fields={"optimizer.lr": 1e-3, "optimizer.adamw_lr": 1e-4},
        verdict="noticeably worse",
        is_labelled=False,
    ),
    Entry(
        number=27,
        parent=25,
        change="higher rates",
        fields={"optimizer.lr": 5e-3, "optimizer.adamw_lr": 5e-4},
        observed={"step": 5_000, "stft": 0.508, "parameters": 22_000_000},
        verdict="much better, beating even the spectrogram net",
    ),
    Entry(
        number=28,
        parent=27,
        change="twice the rates",
        fields={"optimizer.lr": 1e-2, "optimizer.adamw_lr": 1e-3},
        verdict="worse",
    ),
    Entry(
        number=29,
        parent=27,
        change="more depth",
        fields={
            "model.channels": (1, 8, 32, 128, 256, 512),
            "model.blocks": (4, 4, 4, 4, 4),
            "model.factors": (8, 4, 4, 2, 2),
        },
        unknown=_RATES,
        observed={"memory": "<6 GB"},
        verdict="a little bigger, a little more memory",
    ),
    Entry(
        number=30,
        parent=27,
        change="less depth: fewer channels, and less down-sampling",
        fields={"model.channels": (1, 8, 64, 128, 256), "model.factors": (8, 8, 2, 2)},
        unknown=_RATES,
        observed={"parameters": 6_000_000},
        verdict="much smaller, faster, worse",
    ),
    Entry(
        number=31,
        parent=27,
        change="gradient norm clipped at BigVGAN's 1e3",
        fields={"optimizer.clip_norm": 1e3},
        unknown=_RATES | _SHAPE,
        told=frozenset({"data.clip_samples"}),
        verdict="very similar results; val loss decreases monotonically",
    ),
    Entry(
        number=32,
        parent=31,
        change="features of DAC's first encoder block, with clips of a third to fit in memory",
        fields={
            "loss.stft": None,
            "loss.dac": 1.0,
            "loss.dac_blocks": 1,
            "loss.dac_features": "blocks",
            "data.clip_samples": 16_384,
        },
        unknown=frozenset({"optimizer.clip_norm"}),
        observed={"memory": "<12 GB", "memory before the cuts": ">24 GB"},
        verdict="promising, a different sound; val spec loss rises, then levels off",
    ),
    Entry(
        number=33,
        parent=32,
        change="two encoder blocks",
        fields={"loss.dac_blocks": 2},
        verdict="can only fit 2 blocks",
    ),
    Entry(
        number=34,
        parent=32,
        change="features after every residual unit",
        fields={"loss.dac_features": "units"},
        verdict="softer, less of the harsh robotic tone, but weird artifacts",
    ),
    Entry(
        number=35,
        parent=34,
        change="with the multi-scale STFT loss, neither scaled",
        fields={"loss.stft": 1.0},
        observed={"stft over dac": 100},
        verdict="prevents the artifacts, but doesn't really sound better",
    ),
    Entry(
        number=36,
        parent=35,
        change="DAC's multi-scale mel loss",
        fields={
            "loss.stft": None,
            "loss.mel": 1.0,
            "loss.dac": None,
            "loss.dac_blocks": None,
            "loss.dac_features": None,
        },
        unknown=frozenset({"loss.stft", "loss.dac"}),
        verdict="maybe? hard to tell with short audios",
    ),
    Entry(
        number=37,
        parent=36,
        change="clips as long as before DAC's features",
        fields={"data.clip_samples": 49_152},
    ),
    Entry(
        number=38,
        parent=37,
        change="PSGD",
        fields={
            "optimizer.name": "psgd",
            "optimizer.lr": 1e-3,
            "optimizer.adamw_lr": None,
            "optimizer.momentum": 0.9,
        },
        verdict="noticeably slower; lots of loss spikes after 1k steps",
    ),
    Entry(
        number=39,
        parent=38,
        change="lower rate",
        fields={"optimizer.lr": 3e-4},
        verdict="a bit of a slow start, and stalls out later",
    ),
    Entry(
        number=40,
        parent=39,
        change="higher rate",
        fields={"optimizer.lr": 5e-4},
        verdict="worse overall, loss spikes later",
    ),
    Entry(
        number=41,
        parent=40,
        change="lower rate",
        fields={"optimizer.lr": 1e-4},
        verdict="worse than other rates, but val loss decreases monotonically",
    ),
    Entry(
        number=42,
        parent=39,
        change="less momentum",
        fields={"optimizer.momentum": 0.8},
        verdict="initially promising, falls behind in the 2nd half, val loss up and down",
    ),
    Entry(
        number=43,
        parent=39,
        change="more momentum",
        fields={"optimizer.momentum": 0.95},
    ),
)


def _derive(first: Entry, later: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the runs with all of their fields: each its parent's, but for what it changes."""
    runs = {first.number: first}
    for entry in later:
        assert entry.parent is not None
        parent = runs[entry.parent]
        known = (entry.fields.keys() - entry.unknown) | entry.told
        fields = {
            name: value
            for name, value in {**parent.fields, **entry.fields}.items()
            if not (value is None and name in _CONDITIONAL)
        }
        unknown = (parent.unknown - known) | entry.unknown
        runs[entry.number] = replace(entry, fields=fields, unknown=unknown)
    return tuple(runs.values())


ENTRIES = _derive(_FIRST, _LATER)
"""All runs, in the log's order."""
