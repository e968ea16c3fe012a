"""Experiments: one command each, resumable; what they make is an input of measuring, never part of the package."""
