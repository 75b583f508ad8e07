"""Three systems to start from on Monday: `python -m examples.city --help`, and so on, from a clone."""
