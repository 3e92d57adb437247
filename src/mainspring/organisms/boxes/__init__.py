"""A small model that says what lies in which box; what it fetches is bound to the label of the box, not to the place of a clause.

Every object is bound to its box where its clause ends, in the first layer. A guide in the first third of the training says where to
begin. Four explanations that behave alike answer differently under an exchange of parts.
"""
