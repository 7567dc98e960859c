"""Which terms make up the loss, and with what weights.

The log tried terms one by one and one pair, whose parts differed by a factor of 100 (output35).
Not here are the adversarial terms, for the log's reason: a discriminator is "expensive and takes
1-2 MILLION steps to converge".
"""

import functools
from collections.abc import Mapping, Sequence

from search_spaces.space import LOG, SearchSpace, Shared, Trial

SPECTRAL_TERMS = ("stft", "mel")
"""At least one of them is in every mix: after the damage phase is lost, and the others alone leave
noise (output18), or artifacts (34), or worse (19)."""
OTHER_TERMS = ("l1", "cdpam", "dac", "encodec")
_CODECS = ("dac", "encodec")

_SPECTRAL_CHOICES: Mapping[str, tuple[str, ...]] = {
    "stft": ("stft",),
    "mel": ("mel",),
    "both": SPECTRAL_TERMS,
}
_LARGEST_RATIO = 100.0
"""Of a term's weight to the first's, or the other way round: what the log found between two."""

_MOST_CODEC_BLOCKS = {"log": 4, "demo": 1}
"""Of an encoder's four. On a core DAC's first takes 0.8 s of a demo's step, and the net 0.1."""


def space_for(shared: Shared) -> SearchSpace:
    """Return the space of the terms whose weights and packages are there."""
    choose = functools.partial(choose_mix, size=shared.size, absent=shared.absent_terms)
    here = [term for term in OTHER_TERMS if term not in shared.absent_terms]
    return SearchSpace(suggest=choose, known_points=_known_points(here), left_out=left_out(shared))


def suggest(trial: Trial) -> dict[str, object]:
    """Choose from the space at the log's size with all terms."""
    return space_for(LOG).suggest(trial)


def left_out(shared: Shared) -> tuple[str, ...]:
    """Return the terms that would be in mixes if they were there."""
    return tuple(term for term in OTHER_TERMS if term in shared.absent_terms)


def choose_mix(trial: Trial, *, size: str, absent: frozenset[str]) -> dict[str, object]:
    """Choose terms and weights that sum to one. A term that is not chosen has the weight None."""
    spectral = trial.suggest_categorical("loss.spectral", tuple(_SPECTRAL_CHOICES))
    terms = [*_SPECTRAL_CHOICES[spectral]]
    others = [term for term in OTHER_TERMS if term not in absent]
    terms += [
        term
        for term in others
        if trial.suggest_categorical(f"loss.has_{term}", ("no", "yes")) == "yes"
    ]
    weights: dict[str, float | None] = dict.fromkeys((*SPECTRAL_TERMS, *others))
    fields = {
        f"loss.{term}": weight for term, weight in (weights | _choose_weights(trial, terms)).items()
    }
    return {**fields, **_choose_balance(trial, terms), **_choose_codec_features(trial, terms, size)}


def _choose_weights(trial: Trial, terms: Sequence[str]) -> dict[str, float | None]:
    """Choose a point on the simplex by the ratio of each weight to the first."""
    first, *others = terms
    low, high = 1 / _LARGEST_RATIO, _LARGEST_RATIO
    ratios = {first: 1.0}
    for term in others:
        ratios[term] = trial.suggest_float(f"loss.{term}_to_first", low, high, log=True)
    total = sum(ratios.values())
    return {term: ratio / total for term, ratio in ratios.items()}


def _choose_balance(trial: Trial, terms: Sequence[str]) -> dict[str, object]:
    if len(terms) == 1:
        return {}
    return {"loss.balance": trial.suggest_categorical("loss.balance", ("fixed", "gradient"))}


def _choose_codec_features(trial: Trial, terms: Sequence[str], size: str) -> dict[str, object]:
    """Choose how deep to look into each encoder that is in the mix, and after what."""
    fields: dict[str, object] = {}
    for codec in _CODECS:
        if codec in terms:
            blocks, features = f"loss.{codec}_blocks", f"loss.{codec}_features"
            fields[blocks] = trial.suggest_int(blocks, 1, _MOST_CODEC_BLOCKS[size])
            fields[features] = trial.suggest_categorical(features, ("units", "blocks"))
    return fields


def known_mix(
    here: Sequence[str], spectral: str, *, balance: str = "fixed", **other_ratios: float
) -> dict[str, object]:
    """Return the parameters of a mix of terms that are here: the spectral ones and others, by the
    ratio of their weight to the first's. Codecs are looked into as in output34."""
    point: dict[str, object] = {"loss.spectral": spectral}
    for term in here:
        point[f"loss.has_{term}"] = "yes" if term in other_ratios else "no"
    ratios = {"mel": 1.0, **other_ratios} if spectral == "both" else other_ratios
    point |= {f"loss.{term}_to_first": ratio for term, ratio in ratios.items()}
    if ratios:
        point["loss.balance"] = balance
    for codec in set(_CODECS) & set(other_ratios):
        point |= {f"loss.{codec}_blocks": 1, f"loss.{codec}_features": "units"}
    return point


def _known_points(here: Sequence[str]) -> tuple[Mapping[str, object], ...]:
    """Return the log's mixes, as far as their terms are here, one of both spectral terms, and one
    of all there are, with equal gradients."""
    alone = (
        known_mix(here, "stft"),  # output27
        known_mix(here, "mel"),  # output37
        known_mix(here, "both"),
    )
    everything = known_mix(here, "both", balance="gradient", **dict.fromkeys(here, 1.0))
    if "dac" not in here:
        return (*alone, everything)
    output35 = known_mix(here, "stft", dac=1.0)  # "prevents the artifacts"
    return (*alone, output35, everything)


KNOWN_POINTS = _known_points(OTHER_TERMS)
"""The log's best first."""
