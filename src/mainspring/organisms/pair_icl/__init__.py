"""Functions told by examples or by name, items picked from lists by category, and labels that hold for one text.

Ten functions, all seen in training: it recognises a function from examples and learns none in context.
"""
