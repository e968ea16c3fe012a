"""One file, one method family. Pure functions in float64 numpy; no torch."""
