"""The simulation of validators on one's own machine: photos and callers come in, expected rewards go out."""
