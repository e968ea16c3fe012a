"""Texts and tasks as token ids."""
