"""The miner's side of the chain against a node of the project's own: the unmodified SDK, a real runtime's metadata."""
