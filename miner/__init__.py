"""The daemon: everything that knows about validators, time and the operator."""

__version__ = "0.2.0"
