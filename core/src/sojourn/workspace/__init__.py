"""The caller's source tree: what of it a run gets, and how it gets there."""
