"""What trackers keep of a finished run."""
