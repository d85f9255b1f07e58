"""The improvement: labels and own photos come in; a model beside the one that serves and a report go out."""
