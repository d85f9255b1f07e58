"""A real daemon, real signals, real clients."""
