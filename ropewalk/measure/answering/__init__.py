"""Asking a model the questions of a haystack: one prefill, every question on its cache."""
