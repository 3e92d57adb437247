"""Typed view specs and their renderers."""
