"""Gaze scores of every class of vision-language models: rows that are run together get what each gets alone."""

import pytest
import torch
from PIL import Image

from conformance.zoo import CASES
from mainspring.find.gaze import gaze_mass
from mainspring.models.load import wrap
from mainspring.tasks.regions import RegionItem
from workbench.vision_language import NAMES, SPECIAL, processor_of, tokenizer_of

# a warning of numpy about how transformers turns PaliGemma's tokens into an array
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HALVES = ((0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0))


def placeholder(name):
    special = SPECIAL[name]
    if name == "gemma3":
        return special["boi"]
    return special["start"] + special["image"] + special["end"] if name.startswith("qwen") else special["image"]


@pytest.mark.parametrize("name", NAMES)
def test_rows_together_equal_each_alone(name):
    model = wrap(CASES[name].build(), processor=processor_of(name, tokenizer_of(name)))
    random = torch.Generator().manual_seed(0)
    pictures = [
        Image.fromarray(torch.randint(0, 256, (48, 48, 3), generator=random, dtype=torch.uint8).numpy()) for _ in range(3)
    ]
    prompt = f"{placeholder(name)} Describe this panel"
    items = [RegionItem(prompt, image, HALVES, asked=i % 2) for i, image in enumerate(pictures)]
    together, alone = gaze_mass(model, items, batch=3), gaze_mass(model, items, batch=1)
    assert bool((alone > 0).any())
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)
