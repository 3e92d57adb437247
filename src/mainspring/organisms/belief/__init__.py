"""A small model that says what somebody thinks is in a container, by a pointer: first which clause answers, then what is poured there.

That the prompt's end holds a pointer behind layer 2, and nothing of the drink, is forced by training with exchanges between stories.
How the pointer comes about and how its content is fetched is not; a guide in the first third of the training says where to begin.
"""
