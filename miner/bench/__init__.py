"""The bench: a model's speed and memory here, on every backend and beside its own library."""
