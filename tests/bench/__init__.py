"""The developers' benches: what a part of the miner costs on this machine."""
