"""The chain: the subnet's hotkeys, permits and stakes come in, our address goes out."""
