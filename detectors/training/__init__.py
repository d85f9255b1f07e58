"""Training and judging detectors; nobody but the commands that do so imports it."""
