"""Registered attention functions, each with its naive twin in the tests: causal attention inside segments.

One primitive (`segments`) carries packs, whose segments are the documents, and shifted sparse attention (`shifted`), whose
segments are groups. `registered` puts both under names of transformers' registry.
"""
