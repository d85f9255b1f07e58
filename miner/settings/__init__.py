"""The settings: read once from flags, environment and env file, validated, and handed on as one frozen object."""
