"""Backends, the runtimes of a graph: a model folder comes in, a function from array to array goes out."""
