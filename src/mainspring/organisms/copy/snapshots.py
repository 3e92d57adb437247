"""The copy organism along its training: float16 weights of some steps, loaded as ordinary models.

    for step in steps(): model = snapshot(step)

What it does not do: hold the state of the optimizer. Training on from a snapshot is a new training.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.errors import LoadError

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["snapshot", "steps"]

HOME = Path(__file__).parent


def steps(folder: str | Path = HOME) -> tuple[int, ...]:
    """The steps of which weights are kept, in order; the finished model is not among them."""
    return tuple(sorted(int(file.stem.removeprefix("step-")) for file in (Path(folder) / "snapshots").glob("step-*.safetensors")))


def snapshot(step: int, folder: str | Path = HOME) -> "Model":
    """The model as it was after `step` steps, in float32."""
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    import mainspring

    kept = steps(folder)
    if step not in kept:
        raise LoadError(f"there is no snapshot of step {step}; there are {', '.join(map(str, kept)) or 'none'}")
    module = GPT2LMHeadModel(GPT2Config.from_pretrained(folder))
    state = {
        name: value.float() for name, value in load_file(Path(folder) / "snapshots" / f"step-{step:05d}.safetensors").items()
    }
    module.load_state_dict(state | {"lm_head.weight": state["transformer.wte.weight"]})
    return mainspring.wrap(module.eval(), tokenizer=AutoTokenizer.from_pretrained(folder))
