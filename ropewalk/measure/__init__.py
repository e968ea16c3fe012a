"""How far a model reads: likelihood, price, retrieval, statistics."""
