import numpy as np
import pytest
import soundfile
import torch

from trainer.config import SAMPLE_RATE_HZ
from trainer.model_config import ModelConfig
from trainer.models import build_model
from trainer.pitch import shift_pitch
from trainer.restore import Job, Restoration, damage, plan_jobs, process_file
from trainer.trained import restore_clips

pytestmark = pytest.mark.usefixtures("one_thread")

NETS = {
    "waveform": ModelConfig(channels=(1, 4, 8), blocks=(1, 2), factors=(4, 2), kernel_size=9),
    "spectrogram": ModelConfig(
        family="spectrogram",
        channels=(1, 4, 8),
        blocks=(1, 1),
        factors=(2, 4),
        kernel_size=3,
        dilation=2,
        activation="snake",
    ),
    "frames": ModelConfig(
        family="frames",
        channels=(16,),
        blocks=(2,),
        factors=(),
        kernel_size=5,
        output="direct",
    ),
}
IDENTITY = ModelConfig(
    family="frames", channels=(8,), blocks=(1,), factors=(), kernel_size=3, output="difference"
)


def restoration(config, **changes):
    torch.manual_seed(0)
    net = build_model(config).eval()
    return Restoration(net=net, device=torch.device("cpu"), **changes)


def music(frames, channels=2):
    time_s = np.arange(frames) / SAMPLE_RATE_HZ
    noise = np.random.default_rng(frames).normal(0, 0.05, (frames, channels))
    return (0.3 * np.sin(2 * np.pi * 220 * time_s)[:, None] + noise).astype(np.float32)


def whole(process, signal, rate_hz):
    return np.concatenate(list(process(iter([signal]), rate_hz)))


@pytest.mark.parametrize("family", sorted(NETS))
@pytest.mark.parametrize("frames", [1, 700, 30_000, 100_001])
def test_pieces_give_what_the_whole_recording_gives(family, frames):
    process = restoration(NETS[family], core_samples=8192)
    signal = music(frames)
    blocks = (signal[first : first + 5000] for first in range(0, frames, 5000))
    made = np.concatenate(list(process(blocks, SAMPLE_RATE_HZ)))
    expected = restore_clips(process.net, torch.from_numpy(signal.T.copy())).numpy().T
    assert np.abs(expected - signal).max() > 0.1  # the net does something
    np.testing.assert_allclose(made, expected, atol=1e-5)  # float32 in another order


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_a_net_that_changes_nothing_leaves_every_rate_as_it_is(rate_hz):
    signal = np.random.default_rng(0).normal(0, 0.1, (rate_hz, 2)).astype(np.float32)
    made = whole(restoration(IDENTITY), signal, rate_hz)
    np.testing.assert_allclose(made, signal, atol=1e-5)  # an STFT there and back


class Halving(torch.nn.Module):
    """A net whose work can be told at any rate."""

    length_multiple, grid_samples, reach_samples = 1, 1, 0

    def forward(self, clips):
        return clips / 2


@pytest.mark.parametrize(
    ("rate_hz", "hz", "gain"),
    [(8_000, 440, 0.5), (48_000, 440, 0.5), (96_000, 440, 0.5), (96_000, 30_000, 1.0)],
)
def test_what_a_net_changes_is_changed_at_every_rate_and_what_it_cannot_hear_stays(
    rate_hz, hz, gain
):
    process = Restoration(net=Halving(), device=torch.device("cpu"))
    tone = 0.3 * np.sin(2 * np.pi * hz * np.arange(rate_hz) / rate_hz).astype(np.float32)[:, None]
    made = whole(process, tone, rate_hz)
    inner = slice(rate_hz // 10, -rate_hz // 10)
    np.testing.assert_allclose(made[inner], gain * tone[inner], atol=1e-5)  # soxr VHQ: -120 dB


def test_channels_go_through_the_net_each_by_itself():
    process = restoration(NETS["frames"])
    signal = music(20_000, channels=3)
    alone = whole(process, signal[:, 1:2], SAMPLE_RATE_HZ)
    np.testing.assert_array_equal(whole(process, signal, SAMPLE_RATE_HZ)[:, 1:2], alone)


def test_after_a_shift_the_shifted_recording_is_what_is_restored():
    process = restoration(NETS["waveform"])
    signal = music(40_000, channels=1)
    made = whole(process.after_shift(3), signal, SAMPLE_RATE_HZ)
    shifted = np.concatenate(list(shift_pitch(iter([signal]), 2 ** (3 / 12))))
    expected = whole(process, shifted, SAMPLE_RATE_HZ)
    np.testing.assert_allclose(made, expected, atol=1e-5)  # once added to what it was, once not


@pytest.mark.parametrize("semitones", [0, 12.5, -13, float("nan"), float("inf")])
def test_a_shift_out_of_range_is_refused(semitones):
    with pytest.raises(ValueError, match="shift=.*; must be semitones from -12 to 12, not 0"):
        restoration(IDENTITY).after_shift(semitones)


def test_damage_of_a_stream_is_that_of_training_but_for_the_resampling():
    from trainer.damage import damage_clips

    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tones = 0.3 * np.cos(2 * np.pi * np.array([300.0, 2000.0]) * time_s[:, None])
    # A lone steady tone survives; one that swells does not.
    signal = (tones * (1 - np.cos(2 * np.pi * 60 * time_s[:, None]))).astype(np.float32)
    made = whole(damage(4), signal, SAMPLE_RATE_HZ)[: len(signal)]
    expected = damage_clips(torch.from_numpy(signal.T.copy()), torch.tensor([4, 4])).numpy().T
    inner = slice(4000, 40_000)
    assert np.abs(made - expected)[inner].max() < 0.02 * np.abs(expected).max()
    assert np.abs(made - signal)[inner].max() > 0.05


@pytest.mark.parametrize("semitones", [0, 13, -20])
def test_damage_out_of_range_is_refused(semitones):
    with pytest.raises(ValueError, match=f"shift={semitones}; must be whole and semitones"):
        damage(semitones)


def test_a_file_keeps_length_rate_and_channels(tmp_path):
    soundfile.write(tmp_path / "in.wav", music(12_345, channels=3), 48_000, "PCM_24")
    told = []
    job = Job(source=tmp_path / "in.wav", target=tmp_path / "new" / "out.flac")
    done = process_file(job, restoration(NETS["waveform"]), on_progress=told.append)
    made = soundfile.info(job.target)
    assert (made.frames, made.samplerate, made.channels) == (12_345, 48_000, 3)
    assert sum(told) == pytest.approx(done.seconds, rel=1e-3)
    assert done.seconds == pytest.approx(12_345 / 48_000)


@pytest.mark.parametrize("frames", [1, 300, 1000])
def test_even_the_shortest_file_is_shifted_and_restored(tmp_path, frames):
    soundfile.write(tmp_path / "in.wav", music(frames), 22_050)
    job = Job(source=tmp_path / "in.wav", target=tmp_path / "out.wav")
    process_file(job, restoration(IDENTITY).after_shift(-5), on_progress=lambda seconds: None)
    assert soundfile.info(job.target).frames == frames


@pytest.mark.parametrize("content", ["nan", "empty", "text"])
def test_a_file_that_cannot_be_used_is_refused_and_nothing_is_left(tmp_path, content):
    signal = music(3000)
    signal[2000] = np.nan
    if content == "text":
        (tmp_path / "in.wav").write_text("not audio")
    else:
        soundfile.write(
            tmp_path / "in.wav", signal if content == "nan" else signal[:0], 44_100, "FLOAT"
        )
    job = Job(source=tmp_path / "in.wav", target=tmp_path / "out.wav")
    reason = {"nan": "NaN or infinite", "empty": "empty", "text": "unreadable"}[content]
    with pytest.raises(ValueError, match=f"IN=.*in.wav; must be a usable recording: {reason}"):
        process_file(job, restoration(IDENTITY), on_progress=lambda seconds: None)
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


class Overflowing(Halving):
    """A net whose output is finite for quiet clips only."""

    def forward(self, clips):
        return clips * 1e38 * 1e3 if clips.abs().max() > 0.5 else clips


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
@pytest.mark.parametrize("shift", [None, 2])
def test_a_result_that_is_not_finite_is_refused_and_nothing_is_left(tmp_path, rate_hz, shift):
    signal = music(40_000)
    signal[30_000:30_100] *= 3  # some pieces are written before
    soundfile.write(tmp_path / "in.wav", signal, rate_hz)
    restored = Restoration(net=Overflowing(), device=torch.device("cpu"), core_samples=8192)
    process = restored if shift is None else restored.after_shift(shift)
    job = Job(source=tmp_path / "in.wav", target=tmp_path / "out.wav")
    expected = "^IN=.*in.wav; must be a usable recording: its result has NaN or infinite samples$"
    with pytest.raises(ValueError, match=expected):
        process_file(job, process, on_progress=lambda seconds: None)
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


@pytest.fixture
def tree(tmp_path):
    """A folder with two recordings and a text."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("a.wav", "sub/b.FLAC"):
        soundfile.write(tmp_path / "in" / name, music(1000), 44_100)
    (tmp_path / "in" / "notes.txt").write_text("text")
    return tmp_path


def test_a_folder_keeps_its_tree(tree):
    jobs = plan_jobs(tree / "in", tree / "out", force=False)
    assert [job.target.relative_to(tree).as_posix() for job in jobs] == [
        "out/a.wav",
        "out/sub/b.FLAC",
    ]


def test_a_file_goes_into_an_existing_folder_under_its_name(tree):
    (tree / "out").mkdir()
    (job,) = plan_jobs(tree / "in" / "a.wav", tree / "out", force=False)
    assert job.target == tree / "out" / "a.wav"


def test_what_exists_is_refused_before_anything_is_written_unless_forced(tree):
    (tree / "out" / "sub").mkdir(parents=True)
    (tree / "out" / "sub" / "b.FLAC").write_text("old")
    with pytest.raises(ValueError, match="b.FLAC; must not exist yet, or --force replaces it"):
        plan_jobs(tree / "in", tree / "out", force=False)
    assert len(plan_jobs(tree / "in", tree / "out", force=True)) == 2


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("nowhere.wav", "out.wav", "IN=.*nowhere.wav; must be a recording or a folder"),
        ("in/a.wav", "out.txt", "OUT=.*out.txt; must end with one of"),
        ("in/a.wav", "out", "OUT=.*out; must end with one of"),
        ("in/a.wav", "in/a.wav", "OUT=.*a.wav; must be another file than IN"),
        ("in/a.wav", "in", "OUT=.*a.wav; must be another file than IN"),
        ("in", "in/sub/out", "OUT=.*; must lie outside IN"),
        ("in", "in", "OUT=.*; must lie outside IN"),
        ("in", "in/notes.txt", "OUT=.*notes.txt; must be a folder"),
        ("empty", "out", "IN=.*empty; must hold recordings"),
    ],
)
def test_what_cannot_be_done_is_refused_even_by_force(tree, source, target, reason):
    (tree / "empty").mkdir()
    with pytest.raises(ValueError, match=reason):
        plan_jobs(tree / source, tree / target, force=True)


def test_a_link_to_the_original_is_the_original(tree):
    (tree / "link.wav").symlink_to(tree / "in" / "a.wav")
    with pytest.raises(ValueError, match="must be another file than IN"):
        plan_jobs(tree / "in" / "a.wav", tree / "link.wav", force=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    soundfile.write(tmp_path / "in.wav", music(1000), 44_100)
    job = Job(source=tmp_path / "in.wav", target=tmp_path / "in.wav" / "out.wav")
    with pytest.raises(ValueError, match="in.wav: (File exists|Not a directory)"):
        process_file(job, restoration(IDENTITY), on_progress=lambda seconds: None)


def test_a_result_that_ends_early_is_filled_up_with_silence(tmp_path):
    signal = music(5000)
    soundfile.write(tmp_path / "in.wav", signal, 44_100, "FLOAT")
    job = Job(source=tmp_path / "in.wav", target=tmp_path / "out.wav")

    def short(stream, rate_hz):
        return (block[:4000] for block in stream)

    process_file(job, short, on_progress=lambda seconds: None)
    made, _ = soundfile.read(job.target, dtype="float32")
    np.testing.assert_array_equal(made[:4000], signal[:4000])
    assert len(made) == 5000 and not made[4000:].any()
