"""Edges between components: exact patching in one forward pass, attribution by gradient, circuits."""
