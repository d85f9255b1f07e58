"""NATIX's door: a uid and a published model go out to its server and to the hub; whether we are let in comes back."""
