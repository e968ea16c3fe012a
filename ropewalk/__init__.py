"""ropewalk: make a transformer language model read further than it was trained to, and show how far it really reads."""
