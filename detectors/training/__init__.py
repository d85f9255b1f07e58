"""Training: labelled photos and a base model come in, a model folder goes out.

Only the commands that train import it, as it needs torch.
"""
