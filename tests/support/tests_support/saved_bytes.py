"""How much of a forward pass is kept for the way back: with real tensors, and with fake ones."""

import contextlib

import torch


class SavedBytes:
    """Counts, in `total`, the bytes of what is saved for backward: each storage once.

    What lives anyway, such as weights, is given as `known` and not counted.
    """

    def __init__(self, known=()):
        self._known = {_storage(tensor) for tensor in known}
        self._seen = {}

    @property
    def total(self):
        """Return the bytes."""
        return sum(size for size, _ in self._seen.values())

    @contextlib.contextmanager
    def counting(self):
        """Count what is saved within."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
            yield self

    def _pack(self, tensor):
        key = _storage(tensor)
        if key not in self._known:
            # Held on to, so that no other storage takes its place.
            self._seen[key] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor


def _storage(tensor):
    return tensor.untyped_storage()._cdata
