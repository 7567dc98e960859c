"""The terms of the loss, one file a kind; `spectral` also holds the metrics of validation."""
