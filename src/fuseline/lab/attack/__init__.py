"""Inputs pushed to where the model errs: to train against it, and to measure it."""
