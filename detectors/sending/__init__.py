"""How photos look when validators send them: by era, and change by change. Knows numpy and Pillow, no model."""
