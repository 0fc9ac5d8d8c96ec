"""Experiment trackers, one per file: where curves, pictures and scores of a run are shown, beside its own files."""
