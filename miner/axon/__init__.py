"""The axon: signed requests of validators come in, predictions go out; with the client's end of both wires."""

# The second is what newer validators of StreetVision send: the same request, with our model's page in the answer.
SYNAPSES = ("ImageSynapse", "ExtendedImageSynapse")
BTAUTH_PATH = "/predict"
