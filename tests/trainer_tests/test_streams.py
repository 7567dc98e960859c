import tracemalloc

import numpy as np
import pytest

from trainer.streams import Pieces, add, apply_in_pieces, at_least, resample


def noise(frames, channels=2):
    return np.random.default_rng(frames).normal(0, 0.1, (frames, channels)).astype(np.float32)


def blocks(signal, size):
    return (signal[first : first + size] for first in range(0, len(signal), size))


def smooth(piece, reach=5):
    """A moving average that looks `reach` frames to each side, and sees silence beyond."""
    taps = np.ones(2 * reach + 1) / (2 * reach + 1)
    each = [np.convolve(channel, taps, mode="same") for channel in piece.T]
    return np.stack(each, axis=1).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 7, 40, 100, 101, 139, 140, 141, 200, 260, 1000])
@pytest.mark.parametrize("block", [1, 33, 5000])
def test_pieces_give_what_the_whole_gives(frames, block):
    signal = noise(frames)
    pieces = Pieces.for_reach(5, grid_samples=4, core_samples=100, fade_samples=16)
    made = np.concatenate(list(apply_in_pieces(blocks(signal, block), smooth, pieces)))
    if frames >= 11:  # a shorter piece makes NumPy swap signal and taps
        np.testing.assert_allclose(made, smooth(signal), atol=1e-7)
    assert made.shape == signal.shape


def test_a_margin_smaller_than_the_reach_shows():
    signal = noise(1000)
    pieces = Pieces(core_samples=100, margin_samples=8, fade_samples=16)
    made = np.concatenate(list(apply_in_pieces(blocks(signal, 64), smooth, pieces)))
    assert np.abs(made - smooth(signal)).max() > 1e-3


def test_pieces_start_on_the_grid_and_none_is_much_longer_than_asked():
    seen = []
    signal = np.arange(1000, dtype=np.float32)[:, None]

    def watch(piece):
        seen.append((int(piece[0, 0]), len(piece)))
        return piece

    pieces = Pieces.for_reach(10, grid_samples=8, core_samples=100, fade_samples=4)
    list(apply_in_pieces(blocks(signal, 50), watch, pieces))
    assert [start % 8 for start, _ in seen] == [0] * len(seen)
    assert max(length for _, length in seen) <= 104 + 2 * 16
    assert len(seen) == 10  # 104 new frames a piece; the last takes in what its margin covers


def test_where_results_disagree_one_fades_into_the_other():
    numbers = iter(range(10))
    pieces = Pieces(core_samples=100, margin_samples=8, fade_samples=16)

    def constant(piece):
        return np.full_like(piece, next(numbers))

    made = np.concatenate(list(apply_in_pieces(blocks(noise(300), 64), constant, pieces)))[:, 0]
    assert made[0] == made[91] == 0 and made[108] == made[191] == 1 and made[-1] == 2
    assert np.abs(np.diff(made)).max() == pytest.approx(1 / 15, rel=1e-5)


@pytest.mark.parametrize("size", [1, 1000, 100_000])
@pytest.mark.parametrize(("from_hz", "to_hz"), [(48_000, 44_100), (8_000, 44_100), (44_100, 8_000)])
def test_resampling_keeps_a_tone_in_place(from_hz, to_hz, size):
    if size == 1:
        size = 7  # single frames take minutes
    hz, seconds = 440.0, 0.5
    tone = np.sin(2 * np.pi * hz * np.arange(round(seconds * from_hz)) / from_hz)
    stream = blocks(tone.astype(np.float32)[:, None], size)
    made = np.concatenate(list(resample(stream, from_hz=from_hz, to_hz=to_hz)))[:, 0]
    expected = np.sin(2 * np.pi * hz * np.arange(len(made)) / to_hz)
    assert abs(len(made) - seconds * to_hz) <= 1
    inner = slice(len(made) // 10, -len(made) // 10)
    np.testing.assert_allclose(made[inner], expected[inner], atol=1e-5)  # soxr VHQ: -120 dB


def test_resampling_to_the_same_rate_changes_nothing():
    stream = blocks(noise(100), 30)
    assert resample(stream, from_hz=44_100, to_hz=44_100) is stream


@pytest.mark.parametrize("missing", [0, 3, 250])
def test_a_sum_has_the_length_of_the_first_stream(missing):
    one, other = noise(300), noise(301)[: 300 - missing]
    made = np.concatenate(list(add(blocks(one, 70), blocks(other, 33))))
    np.testing.assert_array_equal(made[: len(other)], one[: len(other)] + other)
    np.testing.assert_array_equal(made[len(other) :], one[len(other) :])


def test_a_sum_drops_what_the_second_stream_has_over():
    made = np.concatenate(list(add(blocks(noise(50), 20), blocks(noise(300), 33))))
    assert len(made) == 50


@pytest.mark.parametrize(("frames", "expected"), [(3, 10), (10, 10), (30, 30)])
def test_at_least_adds_zeros_after_a_short_stream(frames, expected):
    signal = noise(frames)
    made = np.concatenate(list(at_least(blocks(signal, 2), 10)))
    assert made.shape == (expected, 2)
    np.testing.assert_array_equal(made[:frames], signal)
    assert not made[frames:].any()


@pytest.mark.parametrize("work", ["pieces", "sum"])
def test_memory_does_not_grow_with_the_stream(work):
    def silence():
        return (np.zeros((10_000, 1), np.float32) for _ in range(400))  # 16 MB in all

    pieces = Pieces.for_reach(10, grid_samples=1, core_samples=20_000, fade_samples=16)
    made = {
        "pieces": lambda: apply_in_pieces(silence(), np.copy, pieces),
        "sum": lambda: add(silence(), silence()),
    }[work]()
    tracemalloc.start()
    frames = sum(len(block) for block in made)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert frames == 4_000_000
    assert peak_bytes < 2e6
