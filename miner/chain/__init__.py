"""Who may ask: the subnet's hotkeys, permits and stakes."""
