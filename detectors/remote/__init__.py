"""Remote engines: other machines that run the graph, asked by the Open Inference Protocol v2."""
