"""The searcher that Ray Tune asks: it hands out what the study proposes, and no more."""

from typing import Any, Protocol

from ray.tune.search import Searcher

from sweeps.engine.placer import Placer
from sweeps.engine.recorder import Recorder
from sweeps.engine.study import Suggestion, SweepStudy
from trainer.config import METRIC


class Stop(Protocol):
    """A request that a sweep's trials checkpoint and end."""

    def is_set(self) -> bool:
        """Return whether they should end."""

    def give_up(self, problem: str) -> None:
        """Ask for it, since no trial can go on."""


class StudySearcher(Searcher):
    """Gives Tune a trial's fingerprint and configuration. The recorder tells the study the rest:
    at this seam Ray gives neither the result that stopped a trial nor the error that ended it."""

    def __init__(
        self,
        study: SweepStudy,
        recorder: Recorder,
        placer: Placer,
        stop: Stop,
    ) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._study = study
        self._recorder = recorder
        self._placer = placer
        self._stop = stop
        self._held: Suggestion | None = None
        """Proposed, and waiting for room on the machines."""
        self._is_exhausted = False

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's assignment, or None while disk or machines have no room for
        another or a running one may come back to be placed again: Tune asks again. FINISHED when
        there are enough."""
        if self._recorder.problem:
            self._stop.give_up(self._recorder.problem)
        if self._stop.is_set():
            return Searcher.FINISHED
        suggestion = self._placer.waiting or self._propose()
        if suggestion is None:
            return None if self._recorder.has_open else Searcher.FINISHED
        request = self._placer.place(suggestion, behind=self._study.left)
        if request is None:
            return None
        if suggestion is self._held:
            self._held = None
        self._recorder.begin(suggestion)
        return {
            "fingerprint": suggestion.fingerprint,
            "fields": suggestion.config.to_fields(),
            "resources": request.to_bundle(),
            "share_bytes": self._placer.share_bytes(request),
        }

    def _propose(self) -> Suggestion | None:
        if self._held is None and not self._is_exhausted:
            self._held = self._study.next()
            self._is_exhausted = self._held is None
            self._recorder.note_untrained(self._study.take_untrained())
        return self._held

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing to tell here."""

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its parts to restore them, and a sweep never does."""
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: the study is what a sweep goes on from."""
