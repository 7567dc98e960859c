import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from trainer.config import SAMPLE_RATE_HZ
from trainer.recordings import Memo, UnusableRecording, decode, find_recordings, write_atomically

ENCODINGS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_16"),
}


def sine(hz=1000.0, seconds=1.0, rate_hz=SAMPLE_RATE_HZ, level=0.5):
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def strongest_hz(signal):
    """Frequency of the highest peak of a long, windowed spectrum: resolution 0.17 Hz."""
    size = 1 << 18
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal)), size))
    return np.argmax(spectrum) * SAMPLE_RATE_HZ / size


def rms_db(signal):
    return 20 * np.log10(np.sqrt(np.mean(np.square(signal, dtype=np.float64))))


def write(path, signal, rate_hz=SAMPLE_RATE_HZ, subtype="PCM_16"):
    soundfile.write(path, signal, rate_hz, subtype=subtype)
    return path


def spoil_unnoticed(file):
    """Replace a file's bytes, but neither size nor time."""
    status = file.stat()
    file.write_bytes(b"\0" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("ending", ENCODINGS)
def test_every_ending_is_decoded_to_the_sine_it_holds(tmp_path, ending):
    path = tmp_path / f"tone{ending}"
    container, subtype = ENCODINGS[ending]
    rate_hz = 48_000 if subtype == "OPUS" else SAMPLE_RATE_HZ
    soundfile.write(path, sine(rate_hz=rate_hz), rate_hz, format=container, subtype=subtype)
    samples = decode(path)
    assert samples.dtype == np.float32
    assert abs(len(samples) - SAMPLE_RATE_HZ) <= 2400  # codecs pad by a frame or so
    middle = samples[5000:-5000]
    assert strongest_hz(middle) == pytest.approx(1000.0, abs=1.0)
    # Lossy codecs at their default quality are allowed half a decibel on a lone sine.
    assert rms_db(middle) == pytest.approx(rms_db(sine()), abs=0.5)


@pytest.mark.parametrize("ending", ENCODINGS)
def test_every_ending_is_found_in_either_case(tmp_path, ending):
    names = [f"a{ending}", f"b{ending.upper()}"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in find_recordings(tmp_path)] == names


RATES = [4_000, 8_000, 11_025, 22_050, 32_000, 44_056, 44_099, 48_000, 96_000, 192_000, 383_993]


@pytest.mark.parametrize("rate_hz", RATES)
def test_a_sine_of_any_rate_keeps_frequency_and_level(tmp_path, rate_hz):
    hz = 0.4 * min(rate_hz, SAMPLE_RATE_HZ)
    samples = decode(write(tmp_path / "tone.wav", sine(hz, rate_hz=rate_hz), rate_hz, "FLOAT"))
    assert len(samples) == pytest.approx(SAMPLE_RATE_HZ, abs=20)
    middle = samples[4410:-4410]
    assert strongest_hz(middle) == pytest.approx(hz, abs=1.0)
    assert rms_db(middle) == pytest.approx(rms_db(sine()), abs=0.1)


def test_what_lies_above_the_new_nyquist_does_not_fold_back(tmp_path):
    samples = decode(write(tmp_path / "high.wav", 0.5 + 0.5 * sine(23e3, rate_hz=96_000), 96_000))
    middle = samples[4410:-4410]
    assert rms_db(middle - middle.mean()) < -90  # 16-bit noise lies at -98 dBFS


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([np.full(30_000, 0.5), np.full(30_000, -0.1)], axis=1)
    samples = decode(write(tmp_path / "stereo.wav", stereo, subtype="FLOAT"))
    assert samples == pytest.approx(np.full(30_000, 0.2), abs=1e-6)


def test_an_mp3_longer_than_a_block_is_decoded_as_in_one_go(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, size=(2**20, 2))
    path = tmp_path / "long.mp3"
    soundfile.write(path, noise, SAMPLE_RATE_HZ)
    whole, _ = soundfile.read(path, dtype="float32")
    assert np.array_equal(decode(path), whole.mean(axis=1))


def with_flac_length(raw: bytes, samples: int) -> bytes:
    """Return a FLAC file whose STREAMINFO claims a number of samples (36 bits, 0 for unknown)."""
    at = raw.index(b"fLaC") + 4 + 4 + 10
    packed = int.from_bytes(raw[at : at + 8], "big") >> 36 << 36 | samples
    return raw[:at] + packed.to_bytes(8, "big") + raw[at + 8 :]


def test_a_flac_that_does_not_know_its_length_is_read_whole(tmp_path):
    path = write(tmp_path / "piped.flac", sine())
    expected = decode(path)
    path.write_bytes(with_flac_length(path.read_bytes(), 0))
    assert np.array_equal(decode(path), expected)


def test_a_flac_that_claims_gigantic_length_is_cut_short(tmp_path):
    path = write(tmp_path / "lies.flac", sine())
    path.write_bytes(with_flac_length(path.read_bytes(), 2**36 - 1))
    with pytest.raises(UnusableRecording, match=r"cut short: 44100 of 68719476735 samples"):
        decode(path)


def test_a_wav_that_claims_gigantic_length_is_read_as_far_as_it_goes(tmp_path):
    path = write(tmp_path / "lies.wav", sine())
    raw = path.read_bytes()
    at = raw.index(b"data") + 4
    path.write_bytes(raw[:at] + b"\xf0\xff\xff\x7f" + raw[at + 4 :])
    assert len(decode(path)) == SAMPLE_RATE_HZ


NOISE = np.random.default_rng(0)
WAV_HEADER = bytes.fromhex(
    "52494646 24000000 57415645 666d7420 10000000 01000100 44ac0000 88580100 02001000"
    "64617461 00000000"
)


@pytest.mark.parametrize("ending", ENCODINGS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (NOISE.bytes(50_000), "unreadable: "),
        (b"", "unreadable: "),
        (b"not audio at all\n" * 500, "unreadable: "),
        (WAV_HEADER, "empty"),
    ],
    ids=["random", "nothing", "text", "header"],
)
def test_what_is_no_audio_is_refused(tmp_path, ending, content, reason):
    path = tmp_path / f"hostile{ending}"
    path.write_bytes(content)
    with pytest.raises(UnusableRecording, match=reason):
        decode(path)


def test_a_flac_cut_in_the_middle_is_refused(tmp_path):
    path = write(tmp_path / "half.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 200_000))
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(UnusableRecording, match=r"unreadable|cut short"):
        decode(path)


def test_an_mp3_cut_in_the_middle_is_shorter(tmp_path):
    path = tmp_path / "half.mp3"
    soundfile.write(path, sine(seconds=3.0), SAMPLE_RATE_HZ)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(decode(path)) / SAMPLE_RATE_HZ == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (np.where(np.arange(44_100) == 44_000, np.nan, sine()), "NaN or infinite"),
        (np.where(np.arange(44_100) == 7, -np.inf, sine()), "NaN or infinite"),
        (32_768 * sine(), r"peak 1.638e\+04; samples must lie in \[-1, 1\]"),
        (sine(seconds=0.49), r"too short: 0.49 s, under 0.5 s"),
        (0.0009 * np.sign(sine()), "silent"),
        (np.stack([sine(), -sine()], axis=1), "silent"),
        (np.zeros(0), "empty"),
    ],
)
def test_unusable_samples_are_refused_with_the_reason(tmp_path, signal, reason):
    path = write(tmp_path / "bad.wav", signal, subtype="DOUBLE")
    with pytest.raises(UnusableRecording, match=reason):
        decode(path)


def test_half_a_second_just_above_silence_is_usable(tmp_path):
    path = write(tmp_path / "faint.wav", np.full(22_050, -0.0011), subtype="FLOAT")
    assert len(decode(path)) == 22_050


@pytest.mark.parametrize("rate_hz", [3_999, 384_001])
def test_an_unbelievable_rate_is_refused(tmp_path, rate_hz):
    path = write(tmp_path / "odd.wav", sine(), rate_hz)
    with pytest.raises(UnusableRecording, match=f"sample rate {rate_hz} Hz; 4000 to 384000"):
        decode(path)


def test_a_file_that_is_gone_is_no_verdict_on_its_content(tmp_path):
    with pytest.raises(OSError, match="cannot be read"):
        decode(tmp_path / "gone.wav")


@pytest.mark.skipif(os.name == "nt", reason="file names are text on Windows")
def test_a_name_that_is_no_text_is_refused(tmp_path):
    path = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.wav"))
    path.touch()
    with pytest.raises(UnusableRecording, match="its name is not valid text"):
        decode(path)


def test_hidden_files_folders_and_other_endings_are_left_out(tmp_path):
    for name in ("b/c/deep.wav", "a.wav", "._a.wav", ".git/x.wav", "notes.txt", "wav", "x.wav.bak"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find_recordings(tmp_path)]
    assert found == ["a.wav", "b/c/deep.wav"]


def test_links_are_followed_once_and_loops_end(tmp_path):
    music, elsewhere = tmp_path / "music", tmp_path / "elsewhere"
    (music / "a").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "far.wav").touch()
    (music / "a" / "loop").symlink_to(music)
    (music / "b").symlink_to(elsewhere)
    (music / "c").symlink_to(elsewhere)
    (music / "lost.wav").symlink_to(tmp_path / "nothing")
    found = [path.relative_to(music).as_posix() for path in find_recordings(music)]
    assert found == ["b/far.wav", "lost.wav"]


def test_a_memo_does_not_read_a_known_file_again(tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(b"first")
    memo = Memo(tmp_path / "memo.json")
    known = memo.content_hash(file)
    memo.verdicts[known] = "silent"
    memo.save()
    spoil_unnoticed(file)
    again = Memo(tmp_path / "memo.json")
    assert again.content_hash(file) == known
    assert again.verdicts == {known: "silent"}
    os.utime(file, ns=(0, 0))
    assert again.content_hash(file) != known


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
@pytest.mark.timeout(60)
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    assert find_recordings(tmp_path) == []


def test_two_memos_keep_each_others_findings(tmp_path):
    first, second = Memo(tmp_path / "memo.json"), Memo(tmp_path / "memo.json")
    file = tmp_path / "a.wav"
    file.write_bytes(b"first")
    known = first.content_hash(file)
    first.verdicts["a"] = None
    second.verdicts["b"] = "silent"
    first.save()
    second.save()
    both = Memo(tmp_path / "memo.json")
    assert both.verdicts == {"a": None, "b": "silent"}
    spoil_unnoticed(file)
    assert both.content_hash(file) == known


@pytest.mark.parametrize("text", ["", "{", "[]", '{"decoder": 0}', '{"hashes": 1}', "\0\0"])
def test_a_damaged_memo_is_made_anew(tmp_path, text):
    path = tmp_path / "memo.json"
    path.write_text(text)
    memo = Memo(path)
    assert memo.verdicts == {}
    memo.verdicts["a"] = None
    memo.save()
    assert Memo(path).verdicts == {"a": None}


def test_verdicts_of_another_decoder_are_forgotten(tmp_path):
    path = tmp_path / "memo.json"
    memo = Memo(path)
    memo.verdicts["a"] = "unreadable: Format not recognised"
    memo.save()
    path.write_text(path.read_text().replace('"decoder": [', '"decoder": ["older", '))
    assert Memo(path).verdicts == {}


def test_a_failed_write_leaves_the_old_text_and_nothing_else(tmp_path):
    (tmp_path / "memo.json").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "memo.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["memo.json"]
