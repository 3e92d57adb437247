"""What the Gaze page asks of a model: prompts that hold the image, the question that finds its heads, and why a model takes no image.

A comics model is asked in its own words. Any other is asked in its chat template, or with the token that its processor replaces by an
image in front of the text.
"""

from dataclasses import dataclass
from typing import Any

from mainspring.errors import InputError
from mainspring.find.gaze_regions import image_positions
from mainspring.models.image_tokens import ImageTokens
from mainspring.models.model import Model
from mainspring.tasks.comic_strips.wording import WORDS
from mainspring.workbench.images import Shown
from mainspring.workbench.shelf import Held

__all__ = ["Prompts", "image_tokens", "is_comic", "lack_of_images", "prompts_for"]


@dataclass(frozen=True)
class Prompts:
    """Prompts to begin with, how many words each is worth, and the question with {} for the number of a panel."""

    answer: str
    narrate: str
    question: str
    words: tuple[int, int] = (16, 80)


COMIC = Prompts("<img> plain this :", "<img> plain this all", "", (3, 36))


def is_comic(held: Held) -> bool:
    """Whether the model knows the words of the comic strips."""
    return held.model.tokenizer is not None and set(WORDS) <= set(held.model.tokenizer.get_vocab())


def prompts_for(held: Held) -> Prompts:
    if is_comic(held):
        return COMIC
    texts = ("Describe this panel:", "Describe the panels one by one:", "Describe panel {}:")
    answer, narrate, question = (_with_image(held.model, text) for text in texts)
    return Prompts(answer, narrate, question)


def _with_image(model: Model, text: str) -> str:
    """A text behind the image, as the model's chat template or its processor writes them."""
    processor: Any = model.processor
    if getattr(processor, "chat_template", None):
        said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        whole: str = processor.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        return whole.removeprefix(getattr(model.tokenizer, "bos_token", None) or "")  # it is put there again
    token = getattr(processor, "image_token", "<image>")
    fence = [getattr(model.config, f"vision_{end}_token_id", None) for end in ("start", "end")]
    if all(isinstance(one, int) for one in fence):
        before, after = model.tokenizer.convert_ids_to_tokens(fence)
        token = f"{before}{token}{after}"
    return f"{token} {text}"


def lack_of_images(held: Held) -> str:
    """Why the model cannot be shown an image, in a sentence; empty where it can."""
    model = held.model
    if model.map is None or not model.map.images:
        return f"{held.name} takes no images; take a vision-language model, such as organism:comics"
    if model.processor is not None:
        return ""
    why = _why_no_processor(held.name)
    return f"{held.name} takes images, but its processor cannot be opened: {why}"


def _why_no_processor(name: str) -> str:
    from transformers import AutoProcessor

    try:
        AutoProcessor.from_pretrained(name)
    except ImportError as error:
        missing = [package for package in ("torchvision", "num2words", "PIL") if package.lower() in str(error).lower()]
        if missing:
            return f"it needs {' and '.join(missing)}, which this Python does not have"
        return " ".join(str(error).split())[:300]
    except Exception as error:  # a checkpoint may hold anything
        return " ".join(str(error).split())[:300]
    return "its folder holds no processor with an image processor; save the model's own into it with save_pretrained"


def image_tokens(held: Held, prompt: str, shown: Shown) -> ImageTokens:
    """Where the image's tokens are in a prompt; a prompt that does not hold the image is refused."""
    token = getattr(held.model.processor, "image_token", "<image>")
    missing = f"the prompt has to hold the image once, as {token}"
    try:
        with held.reading():
            (tokens,) = held.model.image_regions(prompt, images=shown.image)
    except (ValueError, IndexError, RuntimeError, StopIteration) as error:
        if isinstance(error, InputError):
            raise
        said = missing if prompt.count(token) != 1 else "the model's processor refuses this prompt"
        raise InputError(f"{said} ({' '.join(str(error).split())[:200]})") from None
    if not image_positions(tokens):
        raise InputError(missing)
    return tokens
