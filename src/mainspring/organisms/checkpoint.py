"""The state of a training on disk: safetensors for tensors, JSON for the rest, replaced as a whole or not at all.

The tensors are written first, into a file named by its step; then `checkpoint.json`, which names that file, takes the
place of the old one in a single rename; then the old tensors go. Whenever the process dies, what `checkpoint.json`
names is complete.

What it does not do: pickle, or resume a training with another seed, schedule or module: that is refused in words.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.errors import CheckpointRefused

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

__all__ = ["Checkpoint", "CheckpointRefused", "write_json"]

VERSION = 1


class Checkpoint:
    """The checkpoint in a folder; `about` is what a training must agree in to be resumed."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = json.loads(json.dumps({k: asdict(v) if is_dataclass(v) else v for k, v in about.items()}))  # type: ignore[arg-type]

    @property
    def _index(self) -> Path:
        return self.folder / "checkpoint.json"

    def save(self, step: int, module: "Module", optimizer: "Optimizer", curve: list[dict[str, float]]) -> None:
        """Keep this state and drop the one before."""
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"module/{name}": _copy(tensor) for name, tensor in _state(module)}
        for index, held in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": _copy(tensor) for name, tensor in held.items()}
        file = self.folder / f"checkpoint-{step:07d}.safetensors"
        part = file.with_suffix(".part")
        save_file(tensors, part)
        part.replace(file)
        write_json(self._index, {"version": VERSION, "step": step, "tensors": file.name, **self.about, "curve": curve})
        write_json(self.folder / "curve.json", curve)
        for old in self.folder.glob("checkpoint-*"):
            if old != file:
                old.unlink()

    def resume(self, module: "Module", optimizer: "Optimizer") -> tuple[int, list[dict[str, float]]]:
        """Put the state found here into the module and the optimizer; (0, []) where there is none."""
        if not self._index.is_file():
            return 0, []
        try:
            found = json.loads(self._index.read_text())
            step, curve, file, version = (
                int(found["step"]),
                list(found["curve"]),
                self.folder / found["tensors"],
                found["version"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointRefused(f"{self._index} cannot be read ({error!r}); delete it to begin again") from None
        if version != VERSION:
            raise CheckpointRefused(f"{self._index} has version {version}; this reads version {VERSION}")
        for name, asked in self.about.items():
            if found.get(name) != asked:
                raise CheckpointRefused(
                    f"{self.folder} holds a training with {name} {found.get(name)}, not {asked}; choose another folder, or delete "
                    f"{self._index.name} there to begin again"
                )
        self._restore(_load(file), module, optimizer)
        return step, curve

    def _restore(self, tensors: "dict[str, Tensor]", module: "Module", optimizer: "Optimizer") -> None:
        import torch

        own = dict(_state(module))
        held = {name.removeprefix("module/"): t for name, t in tensors.items() if name.startswith("module/")}
        wrong = sorted(own.keys() ^ held.keys()) or sorted(n for n in own if own[n].shape != held[n].shape)
        if wrong:
            raise CheckpointRefused(f"the checkpoint in {self.folder} is of another module: {', '.join(wrong[:5])} do not fit")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(held[name])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer/"):
                _, index, key = name.split("/")
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def write_json(file: Path, data: Any) -> None:
    """Write a JSON file as a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.write_text(json.dumps(data, indent=1))
    os.replace(part, file)


def _load(file: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointRefused(f"{file} cannot be read ({error}); delete checkpoint.json beside it to begin again") from None


def _state(module: "Module") -> "Iterator[tuple[str, Tensor]]":
    """Every parameter and buffer once, whatever the module keeps out of its state dict."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def _copy(tensor: "Tensor") -> "Tensor":
    return tensor.detach().cpu().clone().contiguous()
