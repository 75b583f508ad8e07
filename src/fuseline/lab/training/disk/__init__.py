"""Frozen encoders' tokens on disk: written once, mapped into memory by every later epoch, fold, trial and run."""
