"""Evaluation: what answers earn, how sure that is, and which threshold or combination earns more."""
