"""A search for the best recipe: what may change, the trials, and what they say."""
