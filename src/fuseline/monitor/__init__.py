"""Watching a served model: metrics, drift against the package's profile, a bounded log, reports. Needs no torch."""
