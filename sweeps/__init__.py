"""Which trials run: one file a question; what asks it lives in engine/."""
