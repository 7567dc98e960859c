import resource

import numpy as np
import pytest
import soundfile

from trainer.sound_files import WRITTEN_ENDINGS, check_ending, open_writer

TAGS = {"title": "Title", "artist": "Artist", "album": "Album", "date": "1999", "genre": "Dub"}
TWO_TAGS = {"title": "Title", "artist": "Artist"}


@pytest.fixture
def original(tmp_path):
    """Return a function that makes a recording of 0.1 s and opens it."""
    opened = []

    def make(name="in.wav", subtype="PCM_16", *, channels=2, rate_hz=48_000, kind=None, tags=None):
        path = tmp_path / name
        signal = np.random.default_rng(0).normal(0, 0.1, (rate_hz // 10, channels))
        with soundfile.SoundFile(path, "w", rate_hz, channels, subtype, format=kind) as file:
            for key, text in (tags or {}).items():
                setattr(file, key, text)
            file.write(signal.astype(np.float32))
        opened.append(soundfile.SoundFile(path))
        return opened[-1]

    yield make
    for file in opened:
        file.close()


def write(path, like, *, block=None):
    with open_writer(path, like=like) as writer:
        writer.write(like.read(dtype="float32", always_2d=True) if block is None else block)
    return writer.written


@pytest.mark.parametrize("ending", WRITTEN_ENDINGS)
def test_every_ending_gives_a_file_of_the_same_rate_channels_and_length(tmp_path, original, ending):
    written = write(tmp_path / f"out{ending}", original())
    made = soundfile.info(tmp_path / f"out{ending}")
    assert (made.samplerate, made.channels, made.frames) == (48_000, 2, 4800)
    assert written.frames == 4800


@pytest.mark.parametrize(
    ("subtype", "ending", "expected"),
    [
        ("PCM_16", ".wav", "PCM_16"),
        ("PCM_24", ".wav", "PCM_24"),
        ("FLOAT", ".wav", "FLOAT"),
        ("DOUBLE", ".aiff", "DOUBLE"),
        ("PCM_U8", ".wav", "PCM_U8"),
        ("PCM_24", ".flac", "PCM_24"),
        ("PCM_32", ".flac", "PCM_24"),
        ("FLOAT", ".flac", "PCM_24"),
        ("PCM_16", ".flac", "PCM_16"),
        ("PCM_16", ".ogg", "VORBIS"),
        ("PCM_16", ".opus", "OPUS"),
        ("FLOAT", ".mp3", "MPEG_LAYER_III"),
    ],
)
def test_the_sample_format_is_kept_where_there_is_such_a_one(
    tmp_path, original, subtype, ending, expected
):
    written = write(tmp_path / f"out{ending}", original(subtype=subtype))
    assert soundfile.info(tmp_path / f"out{ending}").subtype == expected
    coarser = expected == "PCM_24" and subtype != "PCM_24"
    assert written.notes == ([f"{subtype} samples became PCM_24"] if coarser else [])


def test_an_opus_stream_in_an_ogg_file_stays_one(tmp_path, original):
    write(tmp_path / "out.ogg", original("in.ogg", "OPUS"))
    assert soundfile.info(tmp_path / "out.ogg").subtype == "OPUS"


def test_16_bit_samples_survive_unchanged(tmp_path, original):
    like = original()
    write(tmp_path / "out.flac", like)
    like.seek(0)
    made, _ = soundfile.read(tmp_path / "out.flac", dtype="int16")
    np.testing.assert_array_equal(made, like.read(dtype="int16"))


@pytest.mark.parametrize(
    ("ending", "kept"),
    [(".wav", TAGS), (".flac", TAGS), (".ogg", TAGS), (".mp3", TAGS), (".aiff", TWO_TAGS)],
)
def test_tags_are_kept_where_the_format_has_them(tmp_path, original, ending, kept):
    write(tmp_path / f"out{ending}", original("in.flac", tags=TAGS))
    with soundfile.SoundFile(tmp_path / f"out{ending}") as made:
        found = made.copy_metadata()
    assert {name: found.get(name) for name in kept} == kept


def test_tags_that_a_format_refuses_are_named(tmp_path, original):
    written = write(tmp_path / "out.w64", original("in.flac", tags=TWO_TAGS))
    assert any("W64 does not keep" in note and "title" in note for note in written.notes)


def test_samples_beyond_full_scale_are_counted_where_they_are_cut_off(tmp_path, original):
    block = np.array([[1.5, 0.0], [-1.01, 1.0]], np.float32)
    assert write(tmp_path / "out.wav", original(), block=block).clipped == 2
    made, _ = soundfile.read(tmp_path / "out.wav")
    assert made[0, 0] == pytest.approx(1, abs=1e-4) and made[1, 0] == -1
    assert write(tmp_path / "f.wav", original("f2.wav", "FLOAT"), block=block).clipped == 0


def test_a_wav_of_more_than_its_lengths_can_tell_is_rf64(tmp_path, original):
    like = original()

    class Long:
        format, subtype, samplerate, channels = "WAV", "PCM_16", like.samplerate, 2
        frames = 2**30
        copy_metadata = like.copy_metadata

    with open_writer(tmp_path / "out.wav", like=Long()) as writer:
        writer.write(np.zeros((10, 2), np.float32))
    assert soundfile.info(tmp_path / "out.wav").format == "RF64"


def test_a_block_that_is_longer_than_the_vorbis_encoder_bears_is_written(tmp_path, original):
    block = np.zeros((4_000_000, 2), np.float32)
    assert write(tmp_path / "out.ogg", original(), block=block).frames == 4_000_000


@pytest.mark.parametrize(
    ("ending", "channels", "rate_hz", "reason"),
    [
        (".opus", 2, 44_100, "2 channels at 44100 Hz: Opus only supports sample rates of 8000"),
        (".mp3", 3, 44_100, "3 channels at 44100 Hz: Format not recognised"),
        (".mp3", 2, 96_000, "at 96000 Hz: MPEG"),
        (".ogg", 1, 384_000, "at 384000 Hz: Vorbis ends at 200000 Hz"),
        (".ogg", 300, 8_000, "300 channels at 8000 Hz: Vorbis ends at 200000 Hz, 255 channels"),
    ],
)
def test_a_format_that_cannot_hold_the_recording_is_refused(
    tmp_path, original, ending, channels, rate_hz, reason
):
    like = original(channels=channels, rate_hz=rate_hz)
    with pytest.raises(ValueError, match=reason) as raised:
        write(tmp_path / f"out{ending}", like)
    assert str(raised.value).startswith(f"OUT={tmp_path}/out{ending}; must be of a format that")
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path, original):
    (tmp_path / "out.wav").write_text("old")
    with pytest.raises(RuntimeError), open_writer(tmp_path / "out.wav", like=original()) as writer:
        writer.write(np.zeros((10, 2), np.float32))
        raise RuntimeError
    assert (tmp_path / "out.wav").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "out.wav"]


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"OUT=.*out.txt; must end with one of .wav, .flac"):
        check_ending(tmp_path / "out.txt")
    check_ending(tmp_path / "OUT.WAV")


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".mp3"])
def test_a_disk_that_is_full_is_said_and_leaves_nothing(tmp_path, original, ending):
    like, noise = original(), np.random.default_rng(0).normal(0, 0.1, (200_000, 2))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="cannot be written: is the disk full"):
            write(tmp_path / f"out{ending}", like, block=noise.astype(np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_an_extensible_wav_stays_one(tmp_path, original):
    write(tmp_path / "out.wav", original(kind="WAVEX"))
    assert soundfile.info(tmp_path / "out.wav").format == "WAVEX"
