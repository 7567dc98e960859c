import weakref

import pytest
import torch

from trainer.loss_config import LossConfig
from trainer.losses.mix import LossMix
from trainer.losses.spectral import l1_distance, mel_distance, stft_distance

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
CLIPS, SAMPLES = 5, 8192
FUNCTIONS = {"stft": stft_distance, "mel": mel_distance, "l1": l1_distance}


@pytest.fixture(scope="module")
def batch():
    """An estimate and its target, [clip, sample]."""
    random = torch.Generator().manual_seed(0)
    target = 0.1 * torch.randn(CLIPS, SAMPLES, generator=random)
    return target + 0.05 * torch.randn(CLIPS, SAMPLES, generator=random), target


def plainly(batch, **weights):
    """Return loss and gradient of a weighted sum by one backward pass over the whole batch."""
    estimate = batch[0].clone().requires_grad_()
    loss = sum(w * FUNCTIONS[name](estimate, batch[1]).mean() for name, w in weights.items())
    loss.backward()
    return loss.detach(), estimate.grad


def relative_difference(one, other):
    return ((one - other).norm() / other.norm()).item()


class SavedBytes:
    """Counts what is kept for backward at once, and the most there was."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        self.now += tensor.nbytes
        self.most = max(self.most, self.now)
        kept = [tensor]
        holder = _Holder(kept)
        weakref.finalize(holder, self._free, tensor.nbytes)
        return holder

    def _free(self, size):
        self.now -= size


class _Holder:
    def __init__(self, kept):
        self.kept = kept


def peak_of(batch, config):
    saved = SavedBytes()
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda holder: holder.kept[0]):
        LossMix(config, CPU).measure(*batch)
    assert saved.now == 0
    return saved.most


@pytest.mark.parametrize("clips_at_once", [1, 2, 5, 8])
def test_the_gradient_is_that_of_the_whole_batch(batch, clips_at_once):
    weights = {"stft": 1.0, "mel": 0.5, "l1": 10.0}
    loss = LossMix(LossConfig(**weights, clips_at_once=clips_at_once), CPU).measure(*batch)
    total, gradient = plainly(batch, **weights)
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-6)  # another order of sums
    assert relative_difference(loss.gradient, gradient) < 1e-5


def test_each_term_is_recorded_on_its_own(batch):
    terms = LossMix(LossConfig(stft=2.0, mel=0.5, l1=0.0), CPU).measure(*batch).terms
    for name, function in FUNCTIONS.items():
        assert terms[name].item() == pytest.approx(function(*batch).mean().item(), rel=1e-6)


def test_a_term_of_weight_zero_trains_nothing(batch):
    alone = LossMix(LossConfig(stft=1.0), CPU).measure(*batch)
    informed = LossMix(LossConfig(stft=1.0, mel=0.0), CPU).measure(*batch)
    assert torch.equal(informed.gradient, alone.gradient)
    assert torch.equal(informed.total, alone.total)
    assert informed.gradient_norms.keys() == {"stft"}


def test_a_gradient_norm_is_that_of_a_clips_own_value(batch):
    norms = LossMix(LossConfig(stft=None, mel=7.0), CPU).measure(*batch).gradient_norms
    _, gradient = plainly(batch, mel=1.0)
    expected = (CLIPS * gradient).norm(dim=1).mean().item()
    assert norms["mel"].item() == pytest.approx(expected, rel=1e-5)


def test_balanced_terms_have_their_shares_whatever_their_scale(batch):
    config = LossConfig(stft=3.0, l1=1.0, balance="gradient")
    loss = LossMix(config, CPU).measure(*batch)
    parts = {name: CLIPS * plainly(batch, **{name: 1.0})[1] for name in ("stft", "l1")}
    unit = {name: part / part.norm(dim=1).mean() for name, part in parts.items()}
    expected = (0.75 * unit["stft"] + 0.25 * unit["l1"]) / CLIPS
    assert relative_difference(loss.gradient, expected) < 1e-5


def test_a_balanced_mix_goes_on_from_its_saved_state(batch):
    config = LossConfig(stft=1.0, mel=1.0, balance="gradient")
    through, resumed = LossMix(config, CPU), LossMix(config, CPU)
    through.measure(batch[0] * 3, batch[1])
    resumed.load_state_dict(through.state_dict())
    expected = through.measure(*batch).gradient
    assert torch.equal(resumed.measure(*batch).gradient, expected)
    assert not torch.equal(LossMix(config, CPU).measure(*batch).gradient, expected)


def test_terms_and_clips_take_turns_with_memory(batch):
    few = peak_of(batch, LossConfig(stft=1.0, clips_at_once=1))
    assert peak_of(batch, LossConfig(stft=1.0, clips_at_once=5)) > 4 * few
    mel = peak_of(batch, LossConfig(stft=None, mel=1.0, clips_at_once=1))
    assert peak_of(batch, LossConfig(stft=1.0, mel=1.0, clips_at_once=1)) == max(few, mel)
