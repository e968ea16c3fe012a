"""Registered attention functions, each with its naive twin in the tests. Empty until a method needs one."""
