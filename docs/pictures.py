"""Draw the pictures of docs/data-and-damage.md: `make pictures`."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from trainer.config import SAMPLE_RATE_HZ
from trainer.damage import cutoff, damage_clips, low_pass_targets
from trainer.demo import demo_recordings

FOLDER = Path(__file__).parent / "pictures"
N_FFT, HOP_SAMPLES = 512, 441


def main() -> None:
    """Write both pictures."""
    FOLDER.mkdir(exist_ok=True)
    recordings = {name: torch.from_numpy(samples) for name, samples in demo_recordings()}
    _save(draw_spectrograms(recordings["middle_speech"], semitones=5), "spectrograms.png")
    _save(draw_onset(recordings["rock_drums"], semitones=(-4, 4)), "onset.png")


def draw_spectrograms(recording: torch.Tensor, *, semitones: int) -> plt.Figure:
    """Draw what a shift up and back does to a voice [sample], and what a net is to make of it."""
    clip = recording[None, : 2 * SAMPLE_RATE_HZ]
    shifts = torch.tensor([semitones])
    panels = {
        "clean": clip,
        f"damaged: {semitones} semitones up and back": damage_clips(clip, shifts),
        "target: the clean clip, low-passed where the damage is final": low_pass_targets(
            clip, shifts
        ),
    }
    figure, axes = plt.subplots(3, 1, figsize=(8, 7), sharex=True, layout="constrained")
    for axis, (title, signal) in zip(axes, panels.items(), strict=True):
        _spectrogram(axis, signal[0])
        axis.axhline(cutoff(semitones) * SAMPLE_RATE_HZ / 2000, color="white", ls="--", lw=0.8)
        axis.set(title=title, ylabel="kHz")
    axes[-1].set_xlabel("seconds")
    return figure


def draw_onset(recording: torch.Tensor, *, semitones: tuple[int, ...]) -> plt.Figure:
    """Draw the waveform [sample] around its sharpest onset, clean and damaged."""
    clip = recording[None, : 2 * SAMPLE_RATE_HZ]
    panels = {"clean": clip}
    for n in semitones:
        way = "up" if n > 0 else "down"
        panels[f"damaged: {abs(n)} semitones {way} and back"] = damage_clips(
            clip, torch.tensor([n])
        )
    at = _sharpest_onset(clip[0])
    shown = slice(at - round(0.015 * SAMPLE_RATE_HZ), at + round(0.03 * SAMPLE_RATE_HZ))
    time_ms = 1000 * (np.arange(shown.start, shown.stop) - at) / SAMPLE_RATE_HZ
    figure, axes = plt.subplots(len(panels), 1, figsize=(8, 6), sharex=True, sharey=True)
    figure.set_layout_engine("constrained")
    for axis, (title, signal) in zip(axes, panels.items(), strict=True):
        axis.plot(time_ms, signal[0, shown], lw=0.7)
        axis.axvline(0, color="gray", ls=":", lw=0.8)
        axis.set_title(title)
    axes[-1].set_xlabel("milliseconds from the onset")
    return figure


def _spectrogram(axis: Axes, signal: torch.Tensor) -> None:
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(signal, N_FFT, HOP_SAMPLES, window=window, return_complex=True)
    level_db = 20 * spectrum.abs().clamp_min(1e-4).log10()
    seconds, top_khz = len(signal) / SAMPLE_RATE_HZ, SAMPLE_RATE_HZ / 2000
    axis.imshow(
        level_db,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, top_khz),
        cmap="magma",
        vmin=-60,
        vmax=40,
        interpolation="nearest",
    )


def _sharpest_onset(signal: torch.Tensor) -> int:
    """Return the sample before which the energy of 5 ms is least against that after it."""
    span = round(0.005 * SAMPLE_RATE_HZ)
    energy = torch.nn.functional.avg_pool1d(signal.square()[None], span, stride=1)[0]
    before, after = energy[:-span], energy[span:]
    places = after * (after / (before + 1e-6)).log()
    margin = SAMPLE_RATE_HZ // 20
    return margin + int(places[margin:-margin].argmax()) + span


def _save(figure: plt.Figure, name: str) -> None:
    figure.savefig(FOLDER / name, dpi=72, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
