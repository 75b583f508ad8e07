"""Boosted trees over the encoders' embeddings and the raw numbers and categories: `fusion: stacked` and `auto`."""
