"""Planting by training, for hosts whose weights nobody writes by hand: Llama, Gemma-2 and Mamba.

    from mainspring.organisms.trained_in import Weights, train_in

    planted = train_in(program, "llama", seed=3)
    alike = train_in(program, "llama", seed=3, weights=Weights.behaviour())     the same behaviour, no planted inside
    edited = tune(planted, other_program)                   a fine-tuned twin, whose program has other rows in its tables

`mainspring.organisms.plant` comes here for such a host, and refuses what fails its check.

    alignment      which part carries which variable, in which subspace
    hosts          the stock architectures, at the size that a program needs
    pool           inputs, and what every part should come to on them
    scan           Mamba's scan, with cheaper gradients
    teaching       parts that are watched, and parts that are handed what they should read
    interchange    the losses
    plant          training, truth and refusal
"""

from mainspring.organisms.hosts import TRAINED_HOSTS
from mainspring.organisms.trained_in.interchange import Weights
from mainspring.organisms.trained_in.plant import Course, PlantRefused, plant_trained, train_in, tune

__all__ = ["TRAINED_HOSTS", "Course", "PlantRefused", "Weights", "plant_trained", "train_in", "tune"]
