"""Where a plan lives: checkpoints on disk, GGUF files, live models. A host carries a plan and reads it back."""
