"""The wire between a validator and this miner, both ends of it."""

# The second is what newer validators of StreetVision send: the same request, with our model's page in the answer.
SYNAPSES = ("ImageSynapse", "ExtendedImageSynapse")
BTAUTH_PATH = "/predict"
