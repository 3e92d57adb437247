"""The engine: runs an untouched model with reads and edits, and leaves it as it was."""
