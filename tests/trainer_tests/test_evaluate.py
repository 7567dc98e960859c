import dataclasses

import auraloss
import pytest
import torch

from trainer.batches import validation_clips
from trainer.config import METRIC, ValidationConfig
from trainer.damage import damage_clips, low_pass_targets
from trainer.evaluate import ValidationSet, evaluate, score_do_nothing

pytestmark = pytest.mark.usefixtures("one_thread")

METRICS = {"stft", "mel", "lsd_db", "si_sdr_db", "l1"}
# More clips than are scored at once, and of every kind of shift.
CONFIG = ValidationConfig(clips=11, clip_samples=8192, shifts=(-5, 1, 3))


@pytest.fixture
def validation(data, one_thread):
    return ValidationSet.build(data, CONFIG, torch.device("cpu"))


def unchanged(clips):
    return clips


def test_the_set_is_the_fixed_clips_damaged_and_their_targets(data, validation):
    samples, semitones = validation_clips(data, CONFIG)
    clips, shifts = torch.from_numpy(samples), torch.from_numpy(semitones)
    assert torch.equal(validation.shifts, shifts)
    assert torch.equal(validation.damaged, damage_clips(clips, shifts))
    assert torch.equal(validation.target, low_pass_targets(clips, shifts))


def test_the_set_is_the_same_whatever_was_drawn_before(data, validation):
    torch.manual_seed(5)
    again = ValidationSet.build(data, CONFIG, torch.device("cpu"))
    assert torch.equal(again.damaged, validation.damaged)
    assert evaluate(unchanged, again) == evaluate(unchanged, validation)


def test_handing_back_the_targets_is_the_best_there_is(validation):
    targets = iter(torch.split(validation.target, 8))
    scores = evaluate(lambda clips: next(targets), validation)
    assert scores.keys() == METRICS
    assert [scores[name] for name in ("stft", "mel", "lsd_db", "l1")] == [0.0] * 4
    assert scores["si_sdr_db"] > 60


def test_the_metric_is_the_mean_of_auraloss_s_over_clips(validation):
    published = auraloss.freq.MultiResolutionSTFTLoss()
    pairs = zip(validation.damaged, validation.target, strict=True)
    values = [published(made[None, None], aim[None, None]).item() for made, aim in pairs]
    # Eleven float32 values, each summed in another order.
    expected = sum(values) / len(values)
    assert evaluate(unchanged, validation)[METRIC] == pytest.approx(expected, rel=1e-5)


def test_many_clips_score_as_they_do_one_by_one(validation):
    estimate = 0.5 * validation.damaged
    parts = [
        ValidationSet(
            damaged=validation.damaged[i : i + 1],
            target=validation.target[i : i + 1],
            shifts=validation.shifts[i : i + 1],
        ).score(estimate[i : i + 1])
        for i in range(len(estimate))
    ]
    together = validation.score(estimate)
    for name in METRICS:
        mean = sum(part[name] for part in parts) / len(parts)
        assert together[name] == pytest.approx(mean, rel=1e-5)  # float32 sums in another order


def test_do_nothing_is_the_damaged_clips_low_passed_as_their_targets(validation):
    low_passed = low_pass_targets(validation.damaged, validation.shifts)
    assert score_do_nothing(validation) == validation.score(low_passed)


def test_no_net_may_take_the_credit_for_the_low_pass(validation):
    bare, do_nothing = evaluate(unchanged, validation), score_do_nothing(validation)
    assert do_nothing[METRIC] < 0.98 * bare[METRIC]


def test_down_shifts_alone_leave_nothing_to_low_pass(data):
    down = dataclasses.replace(CONFIG, shifts=(-5, -1))
    validation = ValidationSet.build(data, down, torch.device("cpu"))
    assert score_do_nothing(validation) == evaluate(unchanged, validation)


def test_the_log_spectral_distance_counts_only_what_a_shift_can_leave(data):
    up = dataclasses.replace(CONFIG, shifts=(12,))
    validation = ValidationSet.build(data, up, torch.device("cpu"))
    high = torch.zeros(1, 8192)
    high[0, ::2], high[0, 1::2] = 0.01, -0.01  # nyquist itself: far above the cut-off
    scores = validation.score(validation.target + high)
    assert scores["lsd_db"] < 0.1  # of 40 dB and more, were all bins counted
    assert scores["stft"] > 0.1


def test_evaluating_keeps_no_graph_and_gives_numbers(validation):
    gain = torch.ones((), requires_grad=True)
    seen = []

    def restore(clips):
        seen.append((clips * gain).requires_grad)
        return clips * gain

    assert all(type(value) is float for value in evaluate(restore, validation).values())
    assert seen == [False, False]  # eleven clips in two parts


def test_half_precision_estimates_are_scored_in_float32(validation):
    scores = evaluate(lambda clips: clips.bfloat16(), validation)
    assert scores[METRIC] == validation.score(validation.damaged.bfloat16().float())[METRIC]
