"""One file or folder, one engine: how it spells a plan and what it would compute. Dicts only."""
