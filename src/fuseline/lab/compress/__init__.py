"""Smaller and faster models that answer nearly the same: crop, prune, distil, quantise, and the search over them."""
