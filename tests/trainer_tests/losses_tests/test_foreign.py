import hashlib
import os
import re

import pytest

from trainer.loss_config import LossConfig
from trainer.losses import foreign
from trainer.losses.foreign import absent_terms, pin_weights

DAC_FILE = ".cache/descript/dac/weights_44khz_8kbps_0.0.1.pth"


@pytest.fixture(autouse=True)
def empty_home(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    return home


@pytest.fixture
def encodec(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def digest(*contents):
    return hashlib.sha256(b"".join(contents))


def test_absent_weights_have_a_line_each_that_says_what_to_fetch_and_where(empty_home):
    absent = absent_terms(LossConfig())
    assert absent["dac"].startswith("run `python -m dac download`, which puts")
    assert str(empty_home / DAC_FILE) in absent["dac"]
    assert absent["encodec"].startswith("run `hf download facebook/encodec_48khz config.json model")
    assert not any("\n" in line for line in absent.values())
    assert "adversarial" not in absent  # needs a package alone, and that is installed


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # the package's own
def test_the_place_of_dac_s_weights_is_that_of_its_package(empty_home):
    file = empty_home / DAC_FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    from dac.utils import download

    assert download() == file  # found there: nothing is fetched
    assert foreign.find_dac(LossConfig()) == file
    assert "dac" not in absent_terms(LossConfig())


def test_encodec_is_found_in_hugging_face_s_cache(empty_home):
    model = empty_home / "hub" / "models--facebook--encodec_48khz"
    folder = model / "snapshots" / "0123"
    folder.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0123")
    (folder / "config.json").write_text("{}")
    assert "encodec" in absent_terms(LossConfig())
    (folder / "model.safetensors").write_bytes(b"weights")
    assert foreign.find_encodec(LossConfig()) == folder


@pytest.mark.parametrize("term", ["dac", "encodec"])
def test_a_term_without_weights_is_refused_before_training(term):
    config = LossConfig(**{term: 0.5})
    expected = f"loss.{term}=0.5; must be null here: {absent_terms(config)[term]}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        pin_weights(config)


def test_a_named_file_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="loss.dac_weights names /no/file, and there is no file"):
        pin_weights(LossConfig(dac=1.0, dac_weights="/no/file"))


def test_other_terms_need_nothing():
    config = LossConfig(stft=1.0, adversarial=0.1)
    assert pin_weights(config) == config


def test_weights_are_pinned_by_their_content(encodec, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"dac")
    pinned = pin_weights(
        LossConfig(dac=1.0, dac_weights=str(file), encodec=1.0, encodec_weights=str(encodec))
    )
    assert pinned.dac_weights_hash == digest(b"dac").hexdigest()[:16]
    both = digest(digest(b"{}").digest(), digest(b"weights").digest())
    assert pinned.encodec_weights_hash == both.hexdigest()[:16]
    assert pin_weights(pinned) == pinned


def test_other_weights_than_the_pinned_are_refused(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"one")
    pinned = pin_weights(LossConfig(dac=1.0, dac_weights=str(file)))
    file.write_bytes(b"other")
    found = digest(b"other").hexdigest()[:16]
    expected = f"loss.dac_weights_hash={pinned.dac_weights_hash}; must be {found}, the weights"
    with pytest.raises(ValueError, match=expected):
        pin_weights(pinned)


def test_a_file_is_read_once_as_long_as_its_size_and_time_stay(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"one")
    config = LossConfig(dac=1.0, dac_weights=str(file))
    first, status = pin_weights(config), file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert pin_weights(config) == first
