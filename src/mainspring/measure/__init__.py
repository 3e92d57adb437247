"""How well did that work? Metrics on runs."""
