"""A small model that works out products of hidden groups from facts in the same text, in symbols that mean something else every time.

What it knows is no table: it copies facts that it was told, swaps operands, spots identities and rules out symbols that are taken. How
well it does each, and which heads copy and which demote identities, is measured; the bars that it does not reach are in its card.
"""
