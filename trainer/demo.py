"""Recordings for trying things out: music and voices, synthesized, the same on every machine.

Nothing here is heard by a user of real recordings.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when first used: a second that most trials can do without

from trainer.config import SAMPLE_RATE_HZ

DEMO_REVISION = 1
"""Raised whenever a demo recording changes: it stands for their samples in the fingerprint."""

_Signal = npt.NDArray[np.float64]
_Random = np.random.Generator
_Instrument = Callable[[float, float, _Random], _Signal]
"""Called with pitch in Hz and length in seconds."""

_HIGHEST_HZ = 20_000.0
_FORMANTS_HZ: Mapping[str, tuple[float, ...]] = {  # after Peterson and Barney (1952), men
    "a": (730, 1090, 2440, 3400, 4500),
    "e": (530, 1840, 2480, 3500, 4500),
    "i": (270, 2290, 3010, 3600, 4600),
    "o": (570, 840, 2410, 3300, 4400),
    "u": (300, 870, 2240, 3200, 4400),
}
_BANDWIDTHS_HZ = (70.0, 90.0, 130.0, 200.0, 300.0)
_CONSONANTS: Mapping[str, tuple[float, float, float, float]] = {
    # lowest and highest Hz, seconds, level
    "s": (4500, 15000, 0.11, 0.35),
    "sh": (2200, 9000, 0.12, 0.4),
    "f": (1500, 18000, 0.09, 0.12),
    "t": (3000, 16000, 0.025, 0.6),
    "k": (1200, 5000, 0.03, 0.6),
    "p": (300, 3000, 0.02, 0.5),
}
_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)
_CHORDS = ((0, 4, 7), (-3, 0, 4), (-7, -3, 0), (-5, -1, 2))
"""I, vi, IV, V in semitones from the tonic."""


def demo_recordings() -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield name and float32 [sample] at 44.1 kHz, 4 to 6 s each, peaks of 0.5 to 0.9."""
    for number, (name, make) in enumerate(_PIECES.items()):
        random = np.random.default_rng([DEMO_REVISION, number])
        seconds = float(random.uniform(4.0, 6.0))
        yield name, _finish(make(seconds, random), seconds, random)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE_HZ)


def _time(seconds: float) -> _Signal:
    return np.arange(_samples(seconds)) / SAMPLE_RATE_HZ


def _hz(note: float) -> float:
    """Return the pitch of a MIDI note number; 69 is 440 Hz."""
    return float(440.0 * 2.0 ** ((note - 69.0) / 12.0))


def _place(sounds: Iterable[tuple[float, _Signal]], seconds: float) -> _Signal:
    """Return the sum of sounds, each from its own second on, what is too long cut off."""
    total = np.zeros(_samples(seconds))
    for at, sound in sounds:
        start = _samples(at)
        room = len(total) - start
        total[start : start + len(sound)] += sound[: max(0, room)]
    return total


def _band(signal: _Signal, low_hz: float, high_hz: float) -> _Signal:
    sections = scipy.signal.butter(
        2, (low_hz, high_hz), "bandpass", fs=SAMPLE_RATE_HZ, output="sos"
    )
    return np.asarray(scipy.signal.sosfilt(sections, signal))


def _swell(seconds: float, attack_s: float, release_s: float) -> _Signal:
    """Return a gain that rises, stays at 1 and falls, [sample]."""
    time = _time(seconds)
    return np.clip(np.minimum(time / attack_s, (seconds - time) / release_s), 0.0, 1.0)


def _finish(signal: _Signal, seconds: float, random: _Random) -> npt.NDArray[np.float32]:
    """Return the signal in a room, with noise of -75 to -60 dBFS, short fades and a set peak."""
    decay_s = random.uniform(0.05, 0.4)
    room = random.normal(size=_samples(2.5 * decay_s)) * np.exp(-_time(2.5 * decay_s) / decay_s)
    room *= random.uniform(0.05, 0.3) / np.sqrt(np.sum(room**2))
    room[0] += 1.0
    wet = scipy.signal.fftconvolve(signal, room)[: len(signal)]
    wet *= random.uniform(0.5, 0.9) / np.abs(wet).max()
    wet += random.normal(size=len(wet)) * 10.0 ** (random.uniform(-75.0, -60.0) / 20.0)
    wet *= _swell(seconds, 0.005, 0.03)
    return np.asarray(wet, dtype=np.float32)


# Instruments


def _plucked(
    hz: float, seconds: float, random: _Random, *, damping: float, softness: float
) -> _Signal:
    """Return a plucked string (Karplus and Strong, 1983), tuned by linear interpolation.

    `damping` (0 to 1) shortens high partials, `softness` (0 to 1) weakens them from the start.
    """
    period = SAMPLE_RATE_HZ / hz
    whole = int(period)
    part = period - whole
    loop = np.convolve((1.0 - part, part), (damping / 2, 1.0 - damping, damping / 2))
    feedback = np.zeros(whole + 3)
    feedback[0] = 1.0
    feedback[whole - 1 :] = -(0.001 ** (1.0 / (hz * random.uniform(1.5, 4.0)))) * loop
    burst = np.zeros(_samples(seconds))
    burst[:whole] = random.uniform(-1.0, 1.0, size=whole)[: len(burst)]
    burst = np.asarray(scipy.signal.lfilter((1.0 - softness,), (1.0, -softness), burst))
    place = int(whole * random.uniform(0.1, 0.3))  # where the string is plucked: a comb
    burst[place:] -= 0.9 * burst[: len(burst) - place]
    return np.asarray(scipy.signal.lfilter((1.0,), feedback, burst)) * _swell(seconds, 0.001, 0.02)


def _struck(
    hz: float, seconds: float, random: _Random, *, ratios: _Signal, ring_s: float
) -> _Signal:
    """Return partials that die out, the higher the sooner: piano, marimba, bell."""
    time = _time(seconds)
    sound = np.zeros(len(time))
    for number, ratio in enumerate(ratios[hz * ratios < _HIGHEST_HZ]):
        decay = np.exp(-time * (1.0 + 0.35 * (ratio - 1.0)) / ring_s)
        phase = random.uniform(0.0, 2.0 * np.pi)
        sound += decay * np.sin(2.0 * np.pi * hz * ratio * time + phase) / (1.0 + number) ** 0.9
    knock = random.normal(size=len(time)) * np.exp(-time / 0.006)
    return (sound + 0.4 * knock) * _swell(seconds, 0.002, 0.02)


def _sustained(
    hz: float, seconds: float, random: _Random, *, tilt: float, breath: float, attack_s: float
) -> _Signal:
    """Return harmonics falling as 1/k^tilt, with vibrato, a breath of noise and a slow swell."""
    time = _time(seconds)
    depth = random.uniform(0.001, 0.008) * np.clip(time / 0.4, 0.0, 1.0)
    vibrato = 1.0 + depth * np.sin(2.0 * np.pi * random.uniform(4.5, 6.5) * time)
    phase = 2.0 * np.pi * np.cumsum(hz * vibrato) / SAMPLE_RATE_HZ
    count = min(60, int(_HIGHEST_HZ / (hz * 1.01)))
    weights = random.uniform(0.4, 1.0, size=count) / np.arange(1, count + 1) ** tilt
    sound = sum((w * np.sin(k * phase) for k, w in enumerate(weights, start=1)), np.zeros(1))
    noise = breath * _band(random.normal(size=len(time)), hz, min(10.0 * hz, 18_000.0))
    return (sound + noise) * _swell(seconds, attack_s, 0.08)


_guitar = partial(_plucked, damping=0.25, softness=0.7)
_harp = partial(_plucked, damping=0.05, softness=0.5)
_bass = partial(_plucked, damping=0.6, softness=0.9)
_piano = partial(
    _struck, ratios=np.arange(1, 25) * np.sqrt(1.0 + 4e-4 * np.arange(1, 25) ** 2), ring_s=1.2
)
_marimba = partial(_struck, ratios=np.array((1.0, 3.93, 9.2, 16.3)), ring_s=0.25)
_bell = partial(
    _struck, ratios=np.array((0.5, 1.0, 1.18, 1.56, 2.0, 2.51, 3.01, 4.17, 5.43, 6.8)), ring_s=1.6
)
_violin = partial(_sustained, tilt=1.1, breath=0.03, attack_s=0.08)
_flute = partial(_sustained, tilt=2.2, breath=0.25, attack_s=0.05)
_organ = partial(_sustained, tilt=0.9, breath=0.0, attack_s=0.01)
_brass = partial(_sustained, tilt=0.75, breath=0.02, attack_s=0.04)


# What they play


def _melody(
    seconds: float,
    random: _Random,
    *,
    play: _Instrument,
    tonic: int,
    scale: tuple[int, ...] = _MAJOR,
    beat_s: float = 0.3,
) -> _Signal:
    """Return a random walk over a scale, two octaves wide, in notes of one to three beats."""
    sounds: list[tuple[float, _Signal]] = []
    at, degree = 0.05, 7
    while at < seconds - 0.3:
        length_s = beat_s * int(random.integers(1, 4))
        degree = int(np.clip(degree + random.integers(-3, 4), 0, 13))
        note = tonic + 12 * (degree // 7) + scale[degree % 7]
        overlap_s = float(random.uniform(0.9, 1.6))
        sound = play(_hz(note), length_s * overlap_s, random)
        sounds.append((at, random.uniform(0.5, 1.0) * sound))
        at += length_s
    return _place(sounds, seconds)


def _chords(
    seconds: float,
    random: _Random,
    *,
    play: _Instrument,
    tonic: int,
    beat_s: float,
    spread_s: float = 0.0,
) -> _Signal:
    """Return four chords in turn, `beat_s` each, their notes `spread_s` apart."""
    sounds: list[tuple[float, _Signal]] = []
    for number, at in enumerate(np.arange(0.05, seconds - 0.3, beat_s)):
        for voice, step in enumerate((*_CHORDS[number % 4], _CHORDS[number % 4][0] + 12)):
            detune = random.normal() * 0.04
            sound = play(_hz(tonic + step + detune), beat_s * 1.2, random)
            sounds.append((float(at) + voice * spread_s, random.uniform(0.6, 1.0) * sound))
    return _place(sounds, seconds)


# Drums


def _kick(random: _Random) -> _Signal:
    time = _time(0.35)
    pitch = 45.0 + random.uniform(80.0, 160.0) * np.exp(-time / 0.03)
    body = np.sin(2.0 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ) * np.exp(-time / 0.11)
    return body + 0.3 * random.normal(size=len(time)) * np.exp(-time / 0.003)


def _snare(random: _Random) -> _Signal:
    time = _time(0.3)
    tone = np.sin(2.0 * np.pi * random.uniform(170.0, 230.0) * time) * np.exp(-time / 0.05)
    rattle = _band(random.normal(size=len(time)), 900.0, 17_000.0) * np.exp(-time / 0.07)
    return 0.5 * tone + 0.5 * rattle


def _hat(random: _Random, decay_s: float = 0.03) -> _Signal:
    time = _time(6.0 * decay_s)
    metal = sum(np.sign(np.sin(2.0 * np.pi * hz * time)) for hz in (3142.0, 4187.0, 5371.0, 6719.0))
    noise = _band(metal + 2.0 * random.normal(size=len(time)), 6_000.0, 20_000.0)
    return 0.2 * noise * np.exp(-time / decay_s)


def _tom(random: _Random) -> _Signal:
    time = _time(0.5)
    pitch = random.choice((90.0, 120.0, 160.0, 210.0)) * (1.0 + 0.4 * np.exp(-time / 0.04))
    skin = 0.1 * random.normal(size=len(time)) * np.exp(-time / 0.01)
    return np.sin(2.0 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ) * np.exp(-time / 0.15) + skin


def _drums(seconds: float, random: _Random, *, step_s: float, fill: float = 0.15) -> _Signal:
    """Return eighth notes of hats, kick and snare on their beats, and `fill` of other strokes."""
    sounds: list[tuple[float, _Signal]] = []
    for number, at in enumerate(np.arange(0.03, seconds - 0.1, step_s)):
        strokes = [_hat(random, 0.15 if number % 8 == 6 else 0.03)]
        if number % 8 in (0, 3, 4):
            strokes.append(_kick(random))
        if number % 8 in (2, 6):
            strokes.append(_snare(random))
        if random.random() < fill:
            strokes.append(0.6 * (_tom(random) if random.random() < 0.5 else _snare(random)))
        late_s = random.uniform(0.0, 0.01)
        sounds += [(float(at) + late_s, random.uniform(0.6, 1.0) * sound) for sound in strokes]
    return _place(sounds, seconds)


def _toms(seconds: float, random: _Random, *, step_s: float) -> _Signal:
    starts = np.arange(0.03, seconds - 0.2, step_s)
    hits = [(float(at), _tom(random)) for at in starts if random.random() < 0.7]
    shakes = [(float(at) + step_s / 2, _hat(random, 0.05)) for at in starts]
    return _place([*hits, *shakes], seconds)


# Voices


def _vowel(hz: _Signal, vowel: str, random: _Random, *, size: float) -> _Signal:
    """Return a vowel sung along a pitch contour [sample] by a mouth of relative `size`."""
    cycles = np.cumsum(hz) / SAMPLE_RATE_HZ
    phase = cycles % 1.0
    # Rosenberg's glottal pulse (1971), opening for 0.4 and closing for 0.16 of a cycle.
    opening = 0.5 * (1.0 - np.cos(np.pi * phase / 0.4))
    closing = np.cos(0.5 * np.pi * np.clip((phase - 0.4) / 0.16, 0.0, 1.0))
    flow = np.where(phase < 0.4, opening, closing)
    source = np.diff(flow, prepend=0.0) + 0.004 * flow * random.normal(size=len(flow))
    for centre, width in zip(_FORMANTS_HZ[vowel], _BANDWIDTHS_HZ, strict=True):
        radius = np.exp(-np.pi * width / SAMPLE_RATE_HZ)
        angle = 2.0 * np.pi * centre / size / SAMPLE_RATE_HZ
        poles = (1.0, -2.0 * radius * np.cos(angle), radius**2)
        source = scipy.signal.lfilter((sum(poles),), poles, source)
    breath = np.diff(flow * random.normal(size=len(flow)), prepend=0.0)  # past the formants
    return np.asarray(source / (np.abs(source).max() + 1e-9)) + 0.008 * breath


def _consonant(random: _Random) -> _Signal:
    low_hz, high_hz, length_s, level = _CONSONANTS[str(random.choice(sorted(_CONSONANTS)))]
    noise = _band(random.normal(size=_samples(length_s)), low_hz, high_hz)
    return level * noise * _swell(length_s, 0.3 * length_s, 0.5 * length_s)


def _speech(seconds: float, random: _Random, *, hz: float, size: float) -> _Signal:
    """Return syllables, now and then a pause, with the pitch falling over each phrase."""
    sounds: list[tuple[float, _Signal]] = []
    at, phrase = 0.05, 0
    while at < seconds - 0.35:
        length_s = float(random.uniform(0.12, 0.3))
        if random.random() < 0.75:
            noise = _consonant(random)
            sounds.append((at, noise))
            at += len(noise) / SAMPLE_RATE_HZ
        first, last = hz * random.uniform(0.9, 1.25, size=2) * 0.96**phrase
        contour = np.linspace(first, last, _samples(length_s))
        contour *= _jitter(len(contour), random)
        voice = _vowel(contour, str(random.choice(sorted(_FORMANTS_HZ))), random, size=size)
        sounds.append((at, voice * _swell(length_s, 0.03, 0.06) * random.uniform(0.6, 1.0)))
        is_pause = random.random() < 0.15
        at += length_s + (0.3 if is_pause else 0.0)
        phrase = 0 if is_pause else phrase + 1
    return _place(sounds, seconds)


def _jitter(samples: int, random: _Random) -> _Signal:
    """Return a factor [sample] for the pitch that wanders by about a percent."""
    points = 1.0 + 0.01 * random.normal(size=2 + samples // 1500)
    return np.interp(np.linspace(0, len(points) - 1, samples), np.arange(len(points)), points)


def _sing(hz: float, seconds: float, random: _Random, *, size: float) -> _Signal:
    """Return two vowels, one after the other, on a note with vibrato: an instrument."""
    time = _time(seconds)
    depth = 0.015 * np.clip(time / 0.5, 0.0, 1.0)
    contour = hz * (1.0 + depth * np.sin(2.0 * np.pi * random.uniform(5.0, 6.0) * time))
    contour *= _jitter(len(time), random) ** 0.3
    first, second = random.choice(sorted(_FORMANTS_HZ), size=2)
    before = _vowel(contour, str(first), random, size=size)
    after = _vowel(contour, str(second), random, size=size)
    turn = np.clip((time / seconds - 0.4) / 0.2, 0.0, 1.0)
    return ((1.0 - turn) * before + turn * after) * _swell(seconds, 0.05, 0.08)


_tenor = partial(_sing, size=1.0)
_soprano = partial(_sing, size=0.85)


# Pieces


def _mix(seconds: float, random: _Random, *, parts: tuple[tuple[float, "_Piece"], ...]) -> _Signal:
    """Return parts, each at its own level, played together."""
    total = np.zeros(_samples(seconds))
    for level, make in parts:
        part = make(seconds, random)
        total += level * part / np.abs(part).max()
    return total


_Piece = Callable[[float, _Random], _Signal]

_GUITAR_CHORDS = partial(_chords, play=_guitar, tonic=52, beat_s=1.1, spread_s=0.13)
_ROCK = partial(_drums, step_s=0.24)
_FAST = partial(_drums, step_s=0.16, fill=0.3)
_BASS_LINE = partial(_melody, play=_bass, tonic=28, scale=_MINOR, beat_s=0.24)
_PAD = partial(_chords, play=_brass, tonic=57, beat_s=1.4)
_SONG = partial(_melody, play=_tenor, tonic=48, beat_s=0.45)

_PIECES: Mapping[str, _Piece] = {
    "guitar_chords": _GUITAR_CHORDS,
    "guitar_melody": partial(_melody, play=_guitar, tonic=52, scale=_MINOR),
    "harp_chords": partial(_chords, play=_harp, tonic=64, beat_s=0.9, spread_s=0.1),
    "harp_melody": partial(_melody, play=_harp, tonic=60, beat_s=0.2),
    "bass_line": _BASS_LINE,
    "piano_chords": partial(_chords, play=_piano, tonic=55, beat_s=0.8),
    "piano_melody": partial(_melody, play=_piano, tonic=60, scale=_MINOR, beat_s=0.22),
    "marimba_melody": partial(_melody, play=_marimba, tonic=57, beat_s=0.17),
    "bell_melody": partial(_melody, play=_bell, tonic=67, beat_s=0.4),
    "violin_melody": partial(_melody, play=_violin, tonic=64, scale=_MINOR, beat_s=0.35),
    "cello_melody": partial(_melody, play=_violin, tonic=40, beat_s=0.5),
    "string_chords": partial(_chords, play=_violin, tonic=52, beat_s=1.3, spread_s=0.03),
    "flute_melody": partial(_melody, play=_flute, tonic=67, beat_s=0.3),
    "organ_chords": partial(_chords, play=_organ, tonic=48, beat_s=1.2),
    "brass_melody": partial(_melody, play=_brass, tonic=50, beat_s=0.35),
    "low_speech": partial(_speech, hz=105.0, size=1.05),
    "middle_speech": partial(_speech, hz=150.0, size=0.97),
    "high_speech": partial(_speech, hz=215.0, size=0.87),
    "child_speech": partial(_speech, hz=290.0, size=0.75),
    "tenor_song": _SONG,
    "soprano_song": partial(_melody, play=_soprano, tonic=60, scale=_MINOR, beat_s=0.4),
    "choir": partial(_chords, play=_soprano, tonic=57, beat_s=1.5, spread_s=0.02),
    "rock_drums": _ROCK,
    "fast_drums": _FAST,
    "toms": partial(_toms, step_s=0.19),
    "band": partial(_mix, parts=((0.7, _ROCK), (0.6, _BASS_LINE), (0.5, _GUITAR_CHORDS))),
    "song_with_guitar": partial(_mix, parts=((0.8, _SONG), (0.5, _GUITAR_CHORDS))),
    "dance": partial(_mix, parts=((0.7, _FAST), (0.5, _PAD), (0.4, _BASS_LINE))),
}

DEMO_NAMES = tuple(_PIECES)
