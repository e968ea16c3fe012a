"""Synthetic tasks, one file each."""
