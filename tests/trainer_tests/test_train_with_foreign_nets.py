"""Training by losses that look through other nets: random weights of the real architectures."""

import warnings

import pytest

from trainer.journal import read_journal
from trainer.train import train

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


@pytest.fixture(scope="module")
def dac_weights(tmp_path_factory):
    """A file as DAC's own package writes it."""
    file = tmp_path_factory.mktemp("weights") / "dac.pth"
    with warnings.catch_warnings():  # what importing audiotools and its dependencies says
        warnings.simplefilter("ignore")
        import dac

        dac.DAC(encoder_dim=8, encoder_rates=[2, 4, 8, 8], decoder_dim=64).save(file, package=False)
    return file


@pytest.fixture
def config(tiny_config, dac_weights):
    """Return a function from changed fields to a training by four kinds of terms."""
    usual = {
        "loss__stft": 1.0,
        "loss__l1": 0.0,
        "loss__dac": 0.5,
        "loss__dac_blocks": 4,
        "loss__dac_weights": str(dac_weights),
        "loss__balance": "gradient",
        "loss__clips_at_once": 1,
        "steps": 2,
        "report_every": 1,
    }
    return lambda **changes: tiny_config(**usual | changes)


def rows_of(config, folder, **settings):
    rows = []
    train(config, report=rows.append, folder=folder, **settings)
    return rows


def always():
    return True


def trained(rows):
    """Return what training made of rows: no times, no memory."""
    kept = ("step", "train_losses", "stft", "train_dac", "train_l1", "gradient_dac")
    more = [name for name in rows[0] if name.startswith(("train_adv", "train_feat"))]
    return [{name: row[name] for name in (*kept, *more)} for row in rows]


@pytest.mark.parametrize("critic", [{}, {"loss__adversarial": 0.1, "loss__feature_matching": 0.2}])
def test_it_goes_on_from_a_checkpoint_to_the_last_bit(config, tmp_path, critic):
    """What a balancer and a discriminator have learnt is in the checkpoint too."""
    config = config(**critic)
    expected = rows_of(config, tmp_path / "whole")
    parts = tmp_path / "parts"
    first = rows_of(config, parts, should_stop=always)
    second = rows_of(config, parts, resume_from=parts)
    assert [row["step"] for row in first + second] == [1, 2]
    assert trained(first + second) == trained(expected)
    assert trained(read_journal(parts)) == trained(expected)


def test_each_term_is_recorded_and_only_trained_ones_have_gradients(config, tmp_path):
    (row, _) = rows_of(config(loss__mel=0.0), tmp_path)
    assert all(row[f"train_{term}"] > 0 for term in ("stft", "l1", "dac", "mel"))
    gradients = {name for name in row if name.startswith("gradient_")}
    assert gradients == {"gradient_stft", "gradient_dac"}
    weighed = row["train_stft"] + 0.5 * row["train_dac"]
    assert row["train_loss"] == pytest.approx(weighed, rel=1e-6)  # float32


def test_other_weights_than_those_recorded_are_refused_before_training(config, tmp_path):
    rows = []
    with pytest.raises(ValueError, match=r"^loss.dac_weights_hash=0{16}; must be [0-9a-f]{16}, "):
        train(config(loss__dac_weights_hash="0" * 16), report=rows.append, folder=tmp_path)
    assert rows == [] and list(tmp_path.iterdir()) == []
