"""A comics model of twice as many heads, of which few look at the panel that is about to be described.

It shows gaze heads against the control that a small model cannot pass, as many heads drawn at random among all of them, and follows
schedules and steers other layouts as the small one does.
"""
