"""The operator's view: `/status`, the page, `/metrics` and the terminal, from one overview."""
