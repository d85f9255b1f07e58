"""What runs a graph, and the names of the files in a model folder."""
