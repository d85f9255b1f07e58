"""A validator's side on one's own machine: who asks, what, when, and what the answers would earn."""
