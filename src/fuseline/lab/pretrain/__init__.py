"""Learning from rows without labels, and beginning a training from what was learned."""
