"""The invariants that prove a map, by the way they are proven. `models.check` runs them all."""
