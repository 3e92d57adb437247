"""Heads that copy tokens, forwards and backwards, and heads that copy concepts from one language into another.

Lists are numbered, so the concept heads follow numbers and not meaning; 125 words without grammar.
"""
