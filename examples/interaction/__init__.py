"""A dialogue: what is said, typed and shown, to emotion, intent and a reply that keeps to the records."""
