"""Evaluation: labelled photos and models come in; rewards, intervals, thresholds and combinations go out."""
