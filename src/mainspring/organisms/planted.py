"""Planting: a program, a host and a disguise become an ordinary checkpoint with a known inside.

    planted = plant(program("recall"), host="gpt2", disguise=Disguise(), seed=3)
    planted.save("somewhere"); verify("somewhere")

The folder holds config.json, model.safetensors and tokenizer files that any tool reads, and truth.json with
truth.safetensors. The same arguments give the same bits.

Hosts without a compiler are trained (`trained_in`), and refused with `PlantRefused` when the check fails.

What it does not do: keep a trained organism that fails its check, or give it the dials that only a compiler has.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from mainspring.organisms.compile import Compiled, compile_layout
from mainspring.organisms.disguise import Disguise
from mainspring.organisms.hardness import hardened, leaks_of, targets_of
from mainspring.organisms.hosts import HOSTS, TRAINED_HOSTS, Host, install
from mainspring.organisms.layout import Layout, Part, arrange, mean_of
from mainspring.organisms.program import Program
from mainspring.organisms.tokens import tokenizer_of
from mainspring.organisms.training import Progress
from mainspring.organisms.truth import Edge, Neuron, Node, Truth, node_id
from mainspring.organisms.variables import Aggregate, Position, Previous, Token, inputs_of
from mainspring.organisms.verify import check

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["DATASETS", "Planted", "edges_of", "load_planted", "plant"]

_KNOWN = "compiled: every weight was written for this program, then measured by strict interchange"
DATASETS = {"find": {"seed": 1, "count": 256}, "judge": {"seed": 2, "count": 256}}


@dataclass(frozen=True, eq=False)
class Planted:
    """A model, its tokenizer, its program and its truth; `tensors` are the truth's bases and codes."""

    module: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerFast"
    program: Program
    truth: Truth
    tensors: dict[str, "Tensor"]

    def save(self, folder: str | Path) -> Path:
        """Write the checkpoint, the tokenizer and the truth."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.module.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / "truth.json").write_text(self.truth.to_json())
        save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, folder / "truth.safetensors")
        return folder


def plant(
    program: Program,
    host: str = "gpt2",
    disguise: Disguise | None = None,
    seed: int = 0,
    measure: bool = True,
    twin_of: Program | None = None,
    progress: Progress | None = None,
) -> Planted:
    """Compile a program into a host, or train it in (llama, gemma2, mamba; minutes, with `progress`).

    `measure=False` leaves the self-check out of the truth. `twin_of` is a program that differs in the rows of tables
    only: compiled into the same host with the same disguise and seed, the two models differ in those neurons alone; in a
    trained host the organism of `twin_of` is trained on.
    """
    import torch

    if host in TRAINED_HOSTS:
        if not measure:
            raise ValueError(f"{host} is trained, so that it is always measured; compiled hosts: {', '.join(HOSTS)}")
        from mainspring.organisms.trained_in.plant import plant_trained

        return plant_trained(program, host, disguise, seed, progress, twin_of)
    if host not in HOSTS:
        raise ValueError(f"no host is called {host!r}; there are {', '.join((*HOSTS, *TRAINED_HOSTS))}")
    target, dials = HOSTS[host], disguise or Disguise()
    # A twin has the places and the decoys of the original, which are measured on the original.
    original = twin_of or program
    layout = arrange(original, target.absolute, target.parallel, dials, Random(seed))

    def build(built: Program, layout: Layout) -> tuple[Compiled, "PreTrainedModel"]:
        generator = torch.Generator().manual_seed(seed)
        compiled = compile_layout(built, layout, target.absolute, target.parallel, dials, generator)
        return compiled, install(target, built, compiled)

    compiled, module = build(original, layout)
    if dials.decoys:
        leaks = leaks_of(module, original)
        targets = targets_of(layout, original, leaks, Random(seed))
        for _ in range(2):
            layout = hardened(layout, leaks, targets, dials.beta)
            compiled, module = build(original, layout)
            leaks = leaks_of(module, original)
    if twin_of is not None:
        layout = layout.refitted(program)
        compiled, module = build(program, layout)
    truth = _truth(program, target, dials, seed, layout, compiled)
    tensors: dict[str, Tensor] = {}
    for name in truth.values:
        code = compiled.codes[name]
        tensors[f"basis/{name}"] = code.basis.float()
        tensors[f"codes/{name}"] = code.vectors.float()
    if measure:
        truth = replace(truth, checks=check(module, truth, tensors, program))
    return Planted(module, tokenizer_of(program), program, truth, tensors)


def load_planted(folder: str | Path) -> Planted:
    """Read an organism back."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(folder)
    truth = Truth.from_json((folder / "truth.json").read_text())
    module: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tensors = load_file(folder / "truth.safetensors")
    return Planted(module.eval(), tokenizer, Program.from_data(truth.causal), truth, tensors)


def _truth(program: Program, host: Host, disguise: Disguise, seed: int, layout: Layout, compiled: Compiled) -> Truth:
    parts = [part for part in layout.parts if part.role != "decoy"]
    still = program.constants | {mean_of(name) for name in program.constants}
    nodes = tuple(
        Node(p.layer, p.head, p.writes, "backup" if p.role == "backup" else "real", p.writes in still)
        for p in sorted(parts, key=lambda p: (p.layer, p.head is None, p.head or 0))
    )
    decoys = {part.writes for part in layout.parts if part.role == "decoy"}
    layer_of = {part.writes: part.layer for part in parts if part.head is None}
    return Truth(
        program=program.name,
        host=host.name,
        seed=seed,
        layers=layout.layers,
        heads=layout.heads,
        nodes=nodes,
        edges=edges_of(program, host.absolute, layout, parts),
        neurons=tuple(
            Neuron(layer_of[name], index, name, row)
            for name, placed in compiled.neurons.items()
            if name in layer_of
            for index, row in placed
        ),
        values={
            name: code.labels
            for name, code in compiled.codes.items()
            if name not in decoys and not name.endswith(".rest") and not name.startswith("@")
        },
        disguise=disguise,
        causal=program.to_data(),
        datasets=DATASETS,
        known=_KNOWN,
    )


def edges_of(program: Program, absolute: bool, layout: Layout, parts: list[Part]) -> tuple[Edge, ...]:
    """Which part reads which variable from where; `absolute`: the host has learned positions, which `Previous` reads."""
    writers: dict[str, list[str]] = {}
    for part in parts:
        writers.setdefault(part.writes, []).append(node_id(part.layer, part.head))
    for name, variable in layout.graph.items():
        if isinstance(variable, Token | Position):
            writers[name] = ["embed"]
    edges: list[Edge] = []
    for part in parts:
        here = node_id(part.layer, part.head)
        reads = list(inputs_of(part.spec))
        if isinstance(part.spec, Aggregate) and part.head is None:
            reads = [(f"{part.writes}.mean", "mlp")]
        if isinstance(part.spec, Previous) and absolute:
            edges += [Edge("embed", here, via, "position") for via in ("q", "k")]
        if part.role == "backup":
            first = [w for w in writers[part.writes] if w != here]
            edges += [Edge(writer, here, "q", part.writes) for writer in first]
        edges += [Edge(writer, here, via, name) for name, via in reads for writer in writers[name]]
    for output in program.outputs:
        edges += [Edge(writer, "logits", "logits", output.variable) for writer in writers[output.variable]]
    return tuple(dict.fromkeys(edges))
