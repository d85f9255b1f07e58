"""The image, its compose file and Alertmanager, for real: `make test-container`, as root."""
