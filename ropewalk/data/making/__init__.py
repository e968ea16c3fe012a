"""Conversations for tuning on long text, made from the user's documents by a writer that is handed in."""
