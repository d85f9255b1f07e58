"""`roadwork-miner bench`: how fast and how large a model is here, on every backend and beside its own library."""
