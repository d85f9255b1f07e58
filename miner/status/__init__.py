"""What the operator sees: `/status`, the page, `/metrics` and the terminal, from one overview."""
