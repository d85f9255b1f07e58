"""Pictures and models: knows nothing of validators, metrics or the chain."""
