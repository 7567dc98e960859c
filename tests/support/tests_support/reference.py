"""Slow references, written from the papers and not from our code: NumPy, float64, no FFT."""

import numpy as np

FLOOR = 1e-4
"""The smallest STFT magnitude that counts: auraloss's, the square root of its eps of 1e-8."""


def stft_distance(estimate, target, scales):
    """Return the multi-resolution STFT distance of two clips [sample].

    Yamamoto et al. 2020 (arXiv:1910.11480), equations 4 (spectral convergence), 5 (L1 of log
    magnitudes) and 6 (their sum, meaned over scales of FFT size, hop and window).
    """
    distances = []
    for n_fft, hop, window in scales:
        made, aim = (stft_magnitude(x, n_fft, hop, window) for x in (estimate, target))
        convergence = np.sqrt(np.sum((aim - made) ** 2)) / np.sqrt(np.sum(aim**2))
        distances.append(convergence + np.mean(np.abs(np.log(aim) - np.log(made))))
    return sum(distances) / len(distances)


def stft_magnitude(clip, n_fft, hop, window):
    """Return magnitudes [frame, bin] by direct DFT of frames centred on multiples of the hop.

    The clip is continued by reflection; the window is a periodic Hann, centred in the frame.
    """
    clip = np.asarray(clip, np.float64)
    padded = np.pad(clip, n_fft // 2, mode="reflect")
    taper = np.zeros(n_fft)
    first = (n_fft - window) // 2
    taper[first : first + window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    starts = range(0, len(clip) + 1, hop)
    frames = np.stack([padded[start : start + n_fft] * taper for start in starts])
    turns = np.outer(np.arange(n_fft), np.arange(n_fft // 2 + 1)) / n_fft
    return np.maximum(np.abs(frames @ np.exp(-2j * np.pi * turns)), FLOOR)


def nearest_orthogonal(matrix):
    """Return U V^T of a matrix's singular value decomposition U S V^T.

    What Muon's Newton-Schulz iteration approximates (Jordan et al. 2024); its coefficients leave
    the singular values between about 0.68 and 1.13 and turn no singular vector.
    """
    u, _, vh = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    return u @ vh
