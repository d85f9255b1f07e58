"""Other machines that run the graph, asked by the Open Inference Protocol v2: which one, and how long."""
