import dataclasses
import threading
import time

import numpy as np
import pytest

from trainer.batches import Prefetcher, training_batch, validation_clips
from trainer.config import ValidationConfig
from trainer.data import DataSet, Recording

CLIP = 4096
SHIFTS = (-3, -1, 2, 5)


def hash_of(number):
    return f"{number:064x}"


def data_set(training, validation=()):
    """A data set of the given signals, as open_data would give it."""
    signals = [np.asarray(signal, np.float32) for signal in (*training, *validation)]
    starts = np.cumsum([0, *map(len, signals)]).tolist()
    recordings = [
        Recording(name=str(i), content_hash=hash_of(i), start=start, samples=len(signal))
        for i, (start, signal) in enumerate(zip(starts, signals, strict=False))
    ]
    return DataSet(
        fingerprint="0" * 16,
        training=tuple(recordings[: len(training)]),
        validation=tuple(recordings[len(training) :]),
        skipped=(),
        samples=np.concatenate(signals),
    )


def ramp(samples, first=1.0):
    """Samples that tell their own place: first, first + 1, ... (exact in float32)."""
    return first + np.arange(samples)


def draw(data, *, seed=0, step=0, batch_size=8):
    return training_batch(
        data, clip_samples=CLIP, batch_size=batch_size, shifts=SHIFTS, seed=seed, step=step
    )


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_depends_on_seed_and_step_and_nothing_else():
    data = data_set([ramp(100_000), ramp(50_000, first=200_000)])
    batch = draw(data, seed=3, step=7)
    draw(data, seed=3, step=8)
    assert same(draw(data, seed=3, step=7), batch)
    assert not same(draw(data, seed=3, step=8), batch)
    assert not same(draw(data, seed=4, step=7), batch)
    assert not same(draw(data, seed=7, step=3), batch)
    assert not same(draw(data, seed=4, step=6), batch)
    assert not np.array_equal(draw(data, seed=4, step=7)[1], batch[1])


def test_clips_are_stretches_of_recordings_and_shifts_of_the_set():
    data = data_set([ramp(10_000), ramp(20_000, first=100_000)])
    clips, shifts = draw(data, batch_size=200)
    assert (clips.dtype, clips.shape) == (np.float32, (200, CLIP))
    assert np.array_equal(np.diff(clips), np.ones((200, CLIP - 1)))  # none crosses a border
    assert (shifts.dtype, shifts.shape, set(shifts)) == (np.int64, (200,), set(SHIFTS))


def test_every_second_of_audio_is_as_likely_as_every_other():
    data = data_set([ramp(30_000), ramp(90_000, first=100_000)])
    first = draw(data, batch_size=2000)[0][:, 0]
    # Standard deviation of the share: 0.0097; of the mean place: 560 samples.
    assert np.mean(first >= 100_000) == pytest.approx(0.75, abs=0.04)
    places = first[first >= 100_000] - 100_000
    assert places.mean() == pytest.approx((90_000 - CLIP) / 2, abs=2300)
    assert places.max() <= 90_000 - CLIP


def test_the_last_sample_and_the_first_can_be_drawn():
    clips, _ = draw(data_set([ramp(CLIP + 2)]), batch_size=64)
    assert set(clips[:, 0]) == {1.0, 2.0, 3.0}


def test_a_short_recording_lies_whole_among_zeros_at_different_places():
    clips, _ = draw(data_set([ramp(1000)]), batch_size=50)
    places = np.argmax(clips > 0, axis=1)
    for clip, place in zip(clips, places, strict=True):
        assert np.array_equal(clip[place : place + 1000], ramp(1000))
    assert np.array_equal(np.count_nonzero(clips, axis=1), np.full(50, 1000))
    assert len(set(places)) > 40


def test_silent_places_are_drawn_again():
    signal = np.zeros(200_000)
    signal[100_000:] = 0.5
    clips, _ = draw(data_set([signal]), batch_size=400)
    silent = np.mean(np.abs(clips).max(axis=1) == 0)
    assert silent == pytest.approx(0.48**4, abs=0.04)  # four draws, 0.48 silent each
    assert not draw(data_set([np.zeros(50_000)]))[0].any()  # and an end to it


def test_nothing_of_a_silent_draw_is_left_around_a_short_recording():
    clips, _ = draw(data_set([np.full(5000, 1e-5), np.full(1000, 0.5)]), batch_size=200)
    around_short = clips[clips.max(axis=1) == 0.5]
    assert len(around_short) > 50
    assert set(np.unique(around_short)) == {0.0, 0.5}


def noises(lengths):
    random = np.random.default_rng(0)
    return [random.uniform(-0.5, 0.5, length) for length in lengths]


def config(clips=12, shifts=SHIFTS):
    return ValidationConfig(clips=clips, clip_samples=CLIP, shifts=shifts)


def owner(data, clip):
    """The held-out recording that holds a clip."""
    for recording in data.validation:
        whole = data.clip(recording, 0, recording.samples)
        if np.flatnonzero(whole == clip[0]).size:
            return recording
    raise AssertionError("the clip is in no recording")


def test_validation_takes_recordings_and_shifts_in_turn():
    data = data_set(noises([9000]), noises([50_000, 60_000, 70_000]))
    clips, shifts = validation_clips(data, config(clips=7))
    owners = [data.validation.index(owner(data, clip)) for clip in clips]
    assert owners == [0, 1, 2, 0, 1, 2, 0]
    assert shifts.tolist() == [-3, -1, 2, 5, -3, -1, 2]
    assert not np.array_equal(clips[0], clips[3])


@pytest.mark.parametrize(("count", "kinds"), [(4, 4), (2, 4), (4, 2), (3, 4), (1, 4), (6, 4)])
def test_every_recording_meets_every_shift_before_one_pair_comes_again(count, kinds):
    data = data_set(noises([9000]), noises([5000 + i for i in range(count)]))
    clips, shifts = validation_clips(data, config(count * kinds, SHIFTS[:kinds]))
    pairs = {(owner(data, c).name, int(n)) for c, n in zip(clips, shifts, strict=True)}
    assert len(pairs) == count * kinds


def test_validation_of_a_recording_is_unmoved_by_other_recordings():
    data = data_set(noises([9000]), noises([50_000, 60_000, 70_000]))
    last = data.validation[2]
    alone = dataclasses.replace(
        data,
        validation=(dataclasses.replace(last, start=0),),
        samples=data.samples[last.start :],
    )
    among_others, _ = validation_clips(data, config(clips=12))
    assert np.array_equal(among_others[2::3], validation_clips(alone, config(clips=4))[0])


def test_validation_is_the_same_whatever_was_drawn_before():
    data = data_set(noises([9000]), noises([50_000, 60_000]))
    before = validation_clips(data, config())
    draw(data, seed=9)
    np.random.seed(1)
    assert same(validation_clips(data, config()), before)


def test_validation_takes_the_louder_places():
    quiet_then_loud = noises([400_000])[0] * np.where(np.arange(400_000) < 200_000, 1e-4, 1.0)
    clips, _ = validation_clips(data_set(noises([9000]), [quiet_then_loud]), config(clips=64))
    quiet = np.mean(np.abs(clips).max(axis=1) < 1e-3)
    assert quiet == pytest.approx(0.5**3, abs=0.1)  # three candidates, half of them quiet


def test_a_short_validation_recording_is_followed_by_zeros():
    signal = noises([1000])[0].astype(np.float32)
    clips, _ = validation_clips(data_set(noises([9000]), [signal]), config(clips=1))
    assert np.array_equal(clips[0], np.concatenate([signal, np.zeros(CLIP - 1000)]))


def batch_of(step):
    return np.full((1, 2), step, np.float32), np.array([step])


def test_a_prefetcher_gives_every_step_in_order():
    with Prefetcher(batch_of, start=3, stop=8) as batches:
        assert [int(shifts[0]) for _, shifts in batches] == [3, 4, 5, 6, 7]


def test_a_prefetcher_works_ahead_by_as_many_as_told_and_no_more():
    made = []
    started = threading.Event()

    def make(step):
        made.append(step)
        if step == 2:
            started.set()
        return batch_of(step)

    with Prefetcher(make, start=0, stop=100, ahead=2) as batches:
        next(batches)
        assert started.wait(timeout=60)
        time.sleep(0.05)
        assert made == [0, 1, 2]


def test_an_error_in_the_thread_is_raised_where_its_batch_is_asked_for():
    def fail_at_one(step):
        if step == 1:
            raise OSError("the disk is gone")
        return batch_of(step)

    with Prefetcher(fail_at_one, start=0, stop=5) as batches:
        assert next(batches)[1] == [0]
        with pytest.raises(OSError, match="the disk is gone"):
            next(batches)


def test_leaving_early_ends_the_thread():
    before = set(threading.enumerate())  # others may end meanwhile
    with (
        pytest.raises(KeyError),
        Prefetcher(batch_of, start=0, stop=10**9) as batches,
    ):
        next(batches)
        assert len(set(threading.enumerate()) - before) == 1
        raise KeyError
    assert set(threading.enumerate()) <= before


def test_waiting_is_counted_and_work_done_meanwhile_is_not():
    made = threading.Event()

    def slow(step):
        time.sleep(1.0)
        made.set()
        return batch_of(step)

    with Prefetcher(slow, start=0, stop=4, ahead=2) as batches:
        next(batches)
        waited = batches.wait_seconds
        assert 0.5 < waited  # however late the asking began
        made.clear()
        assert made.wait(30)
        time.sleep(0.5)  # until it is at hand
        next(batches)
        assert batches.wait_seconds - waited < 0.5
