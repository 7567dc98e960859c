"""Small recordings of noise, told apart by their seeds."""

import os
import shutil

import numpy as np
import soundfile

from trainer.config import SAMPLE_RATE_HZ


def noise(seed, seconds=0.6):
    """White noise in steps of 16 bits."""
    samples = round(seconds * SAMPLE_RATE_HZ)
    return np.random.default_rng(seed).integers(-16_384, 16_384, samples) / 32_768


def write(path, samples):
    # A WAV file of floats would hold the time it was written at: other bytes at every run.
    soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")


def names(recordings):
    return {recording.name for recording in recordings}


def spoil_unnoticed(file):
    """Replace a file's bytes, but neither size nor time: who reads it again will fail."""
    status = file.stat()
    file.write_bytes(b"\0" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def folder_of(music, tmp_path, recordings):
    folder = tmp_path / "few"
    folder.mkdir()
    for recording in recordings:
        shutil.copyfile(music / recording.name, folder / recording.name)
    return str(folder)
