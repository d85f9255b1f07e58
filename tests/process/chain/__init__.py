"""A whole miner on a chain of its own."""
