"""The Mamba twin of `facts`: the same 640 facts in a state-space model, looked up at the subject's last token by its early mixers.

The early layers have no scan, and see no further than one token back; the late layers have the scan, and no gate. There is no attention:
what later tokens hear of a name goes through `ssm.in`, and rewriting `ssm.out` at the last name by a change of rank one rewrites a fact.
"""
