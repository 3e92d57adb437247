"""The comics model behind an image encoder whose tokens do not show the place that they stand for: it answers, and no heads steer it.

It is the negative twin of gaze heads: the same language model, taught the same strips, with a frozen encoder that shows the content of
every panel once in the area of each of them.
"""
