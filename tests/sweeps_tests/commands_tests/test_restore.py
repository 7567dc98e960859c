"""`unshift restore` and `unshift damage`, as typed."""

import numpy as np
import pytest
import soundfile
from tests_support.trained_folder import tiny_config, write_trained

from trainer.checkpoint import load_best, save_best

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def trial(tmp_path):
    """The fingerprint of a trained trial in the storage root."""
    config = tiny_config("waveform")
    fingerprint = config.fingerprint("0" * 16)
    write_trained(tmp_path / "home" / "trials" / fingerprint, config)
    return fingerprint


@pytest.fixture
def music(tmp_path):
    """A folder with two recordings in a tree."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    signal = np.random.default_rng(0).normal(0, 0.1, (20_000, 2))
    soundfile.write(tmp_path / "in" / "a.wav", signal, 48_000)
    soundfile.write(tmp_path / "in" / "sub" / "b.flac", signal[:, 0], 22_050)
    return tmp_path / "in"


def read(path):
    return soundfile.read(path, dtype="float32", always_2d=True)


def test_a_folder_is_restored_with_its_tree(run, trial, music, tmp_path):
    status, out, err = run("restore", "--trial", trial, music, tmp_path / "out")
    assert (status, "Traceback" in err) == (0, False)
    for name in ("a.wav", "sub/b.flac"):
        before, after = soundfile.info(music / name), soundfile.info(tmp_path / "out" / name)
        assert (after.frames, after.samplerate, after.channels, after.subtype) == (
            before.frames, before.samplerate, before.channels, before.subtype
        )  # fmt: skip
        assert np.abs(read(tmp_path / "out" / name)[0] - read(music / name)[0]).max() > 0.01
        assert str(tmp_path / "out" / name) in out
    assert f"waveform net of trial {trial}" in err


def test_an_exported_folder_does_as_well(run, trial, music, tmp_path):
    folder = tmp_path / "home" / "trials" / trial
    run("restore", "--trial", trial, music / "a.wav", tmp_path / "one.wav")
    run("restore", "--trial", folder, music / "a.wav", tmp_path / "other.wav")
    np.testing.assert_array_equal(read(tmp_path / "one.wav")[0], read(tmp_path / "other.wav")[0])


def test_an_existing_file_stays_unless_forced(run, trial, music, tmp_path):
    (tmp_path / "out.wav").write_text("old")
    status, _, err = run("restore", "--trial", trial, music / "a.wav", tmp_path / "out.wav")
    assert (status, (tmp_path / "out.wav").read_text()) == (2, "old")
    assert "must not exist yet, or --force replaces it" in err
    assert (
        run("restore", "--force", "--trial", trial, music / "a.wav", tmp_path / "out.wav")[0] == 0
    )
    assert soundfile.info(tmp_path / "out.wav").frames == 20_000


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_restored(
    run, trial, music, tmp_path
):
    (music / "broken.wav").write_text("not audio")
    status, out, err = run("restore", "--trial", trial, music, tmp_path / "out")
    assert status == 2
    (line,) = [line for line in err.splitlines() if "ERROR" in line]
    assert f"IN={music / 'broken.wav'}" in line
    assert "1 of 3 recordings could not be processed" in err
    assert len(list((tmp_path / "out").rglob("*.*"))) == 2


@pytest.mark.parametrize(("shift", "warns"), [("3", False), ("-7", True)])
def test_a_shift_beyond_those_trained_on_warns(run, trial, music, tmp_path, shift, warns):
    arguments = ("restore", "--trial", trial, "--shift", shift, music / "a.wav")
    status, _, err = run(*arguments, tmp_path / "out.wav")
    assert status == 0
    assert ("trained on shifts up to 5 semitones" in err) == warns


def test_a_gain_makes_the_result_quieter(run, trial, tmp_path):
    signal = np.random.default_rng(0).normal(0, 0.1, (5000, 1))
    soundfile.write(tmp_path / "in.wav", signal, 44_100, "FLOAT")
    run("restore", "--trial", trial, tmp_path / "in.wav", tmp_path / "as_it_is.wav")
    run("restore", "--trial", trial, "--gain", -20, tmp_path / "in.wav", tmp_path / "quiet.wav")
    as_it_is, quiet = (read(tmp_path / f"{name}.wav")[0] for name in ("as_it_is", "quiet"))
    np.testing.assert_allclose(quiet, 0.1 * as_it_is, rtol=1e-5)


def test_damage_goes_up_and_back(run, music, tmp_path):
    status, _, _ = run("damage", "--shift", -3, music / "a.wav", tmp_path / "out.flac")
    assert status == 0
    damaged, rate_hz = read(tmp_path / "out.flac")
    assert (damaged.shape, rate_hz) == ((20_000, 2), 48_000)
    assert np.abs(damaged - read(music / "a.wav")[0]).max() > 0.01


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--trial", "nope"], "trial=nope; must be 16 hex digits, best:SWEEP, or a folder"),
        (["--trial", "f" * 16], "must be a trial's config.json, and there is none"),
        (["--trial", "../.."], "must be a trial's config.json, and there is none"),
        (["--trial", "{trial}", "--shift", "0"], "shift=0; must be semitones from -12 to 12"),
        (["--trial", "{trial}", "--shift", "nan"], "shift=nan; must be semitones"),
        (["--trial", "{trial}", "--gain", "99"], "99.0 is not in the range -60<=x<=20"),
        (["--trial", "{trial}", "--device", "cuda:99"], "device=cuda:99; must be one of auto"),
        (["--trial", "{trial}", "--storage", "/nowhere"], "storage=/nowhere; must be a folder"),
        ([], "Missing option '--trial'"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(run, trial, music, tmp_path, arguments, line):
    filled = [each.format(trial=trial) for each in arguments]
    status, out, err = run("restore", *filled, music / "a.wav", tmp_path / "out.wav")
    assert (status, out) == (2, "")
    assert line in err
    assert len([text for text in err.splitlines() if text.startswith("Error")]) == 1
    assert not (tmp_path / "out.wav").exists()


def test_weights_of_another_net_are_refused_by_name(run, trial, music, tmp_path):
    folder = tmp_path / "home" / "trials" / trial
    other = write_trained(tmp_path / "other", tiny_config("frames"))
    (folder / "best.safetensors").write_bytes((other.folder / "best.safetensors").read_bytes())
    status, _, err = run("restore", "--trial", trial, music / "a.wav", tmp_path / "out.wav")
    assert status == 2
    assert f"weights={folder / 'best.safetensors'}; must be" in err


def change_weights(folder, change):
    weights = load_best(folder)
    save_best(folder, {name: change(value) for name, value in weights.items()}, step=1)


def test_weights_that_are_not_finite_are_refused_and_nothing_is_written(
    run, trial, music, tmp_path
):
    folder = tmp_path / "home" / "trials" / trial
    change_weights(folder, lambda value: value * float("nan"))
    status, out, err = run("restore", "--trial", trial, music, tmp_path / "out")
    assert (status, out) == (2, "")
    assert err.startswith(f"Error: weights={folder / 'best.safetensors'}; must be finite: ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_recording_whose_result_overflows_is_named_and_the_others_are_restored(
    run, trial, music, tmp_path
):
    def enlarge(value):  # with no bias, silence stays silence
        return value * 1e20 if value.dim() > 1 else 0 * value

    change_weights(tmp_path / "home" / "trials" / trial, enlarge)
    loud, silence = np.full((5000, 1), 0.5), np.zeros((5000, 1))
    soundfile.write(music / "a.wav", loud, 44_100)
    soundfile.write(music / "sub" / "b.flac", silence, 44_100)
    status, _, err = run("restore", "--trial", trial, music, tmp_path / "out")
    assert status == 2
    (line,) = [line for line in err.splitlines() if "ERROR" in line]
    assert f"IN={music / 'a.wav'}; must be a usable recording: its result has NaN" in line
    assert "Warning" not in err
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["b.flac"]
