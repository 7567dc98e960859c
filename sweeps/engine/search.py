"""The searcher that Ray Tune asks: it hands out what the study proposes, and no more."""

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from sweeps.engine.recorder import Recorder
from sweeps.engine.study import SweepStudy
from trainer.config import METRIC


class StudySearcher(Searcher):
    """Gives Tune a trial's fingerprint and configuration. The recorder tells the study the rest:
    at this seam Ray gives neither the result that stopped a trial nor the error that ended it."""

    def __init__(
        self,
        study: SweepStudy,
        recorder: Recorder,
        *,
        is_stopping: Callable[[], bool],
        has_room: Callable[[], bool],
    ) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._study = study
        self._recorder = recorder
        self._is_stopping = is_stopping
        self._has_room = has_room

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's assignment, FINISHED when there are enough, or None while the
        disk has no room for another: Tune asks again."""
        if not self._is_stopping() and not self._has_room():
            return None
        suggestion = None if self._is_stopping() else self._study.next()
        self._recorder.note_untrained(self._study.take_untrained())
        if suggestion is None:
            return Searcher.FINISHED
        self._recorder.begin(suggestion)
        return {"fingerprint": suggestion.fingerprint, "fields": suggestion.config.to_fields()}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing to tell here."""

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its parts to restore them, and a sweep never does."""
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: the study is what a sweep goes on from."""
