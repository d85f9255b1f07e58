"""Training of the starter detector; nothing outside imports it."""
