"""Numbers, side by side with a named peer in one run, as ratios. Never run as tests."""
