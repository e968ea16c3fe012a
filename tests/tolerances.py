"""How far two numbers that mean the same may lie apart: one number for each dtype, and nowhere else.

`float64` is for our own closed forms. `float32` is for hosts and references that compute in it: about sixteen roundings.
`bfloat16` is one rounding to eight bits.
"""

RELATIVE = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 2.0**-8}
"""Largest relative difference, element by element."""
