"""From a layout to numbers: the weights of every head and MLP in a stock pre-norm transformer.

Each part reads coordinates of codes and writes exactly one vector of known norm at every position. The squared norm
of the residual stream at every layer is therefore known, and with it what layer norm divides by:

    LN(x) = x / c,   c = sqrt(|x|^2 / d + eps);     every reader is multiplied by c
    logit = LOGIT * sum over outputs of  weight * [the value votes for the token]

What it does not do: choose places (`layout`), or know module names (`hosts`).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mainspring.organisms.attention import Attention, Rotary, copied, look, matching, previous, shifted
from mainspring.organisms.codebook import ANCHOR, POSITION, codebook, rest_of
from mainspring.organisms.codes import Code, rotation
from mainspring.organisms.disguise import Disguise
from mainspring.organisms.layout import Layout, Part, mean_of
from mainspring.organisms.program import Program
from mainspring.organisms.tables import Units, idle_units, units_of
from mainspring.organisms.variables import (
    Aggregate,
    Previous,
    Select,
    Token,
    inputs_of,
)

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["EPS", "LOGIT", "Compiled", "LayerWeights", "compile_layout", "rotary_of"]

EPS, LOGIT = 1e-5, 10.0
TURNS, THETA = 8, 100.0  # rotary dimensions and base of rotary hosts: frequencies 1, 0.32, 0.1, 0.03


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """Heads: q, k, v [h, d, dh] with biases [h, dh], o [h, dh, d]. MLP: w_in [d, m], b_in, w_out [m, d], b_out."""

    q: "Tensor"
    q_bias: "Tensor"
    k: "Tensor"
    k_bias: "Tensor"
    v: "Tensor"
    v_bias: "Tensor"
    o: "Tensor"
    w_in: "Tensor"
    b_in: "Tensor"
    w_out: "Tensor"
    b_out: "Tensor"


@dataclass(frozen=True, eq=False)
class Compiled:
    """All weights in float64, the codes, and which neuron stands for which row of which variable."""

    embed: "Tensor"
    position: "Tensor | None"
    layers: tuple[LayerWeights, ...]
    unembed: "Tensor"
    codes: dict[str, Code]
    neurons: dict[str, tuple[tuple[int, tuple[str, ...]], ...]]
    rotary: int


def rotary_of(length: int) -> Rotary:
    import torch

    exponent = torch.arange(0, TURNS, 2, dtype=torch.float64) / TURNS
    return Rotary(THETA**-exponent, length)


def compile_layout(
    program: Program,
    layout: Layout,
    absolute: bool,
    parallel: bool,
    disguise: Disguise,
    generator: "Generator",
) -> Compiled:
    """The weights. `absolute`: the host adds position embeddings; otherwise it has rotary. `parallel`: its MLP reads
    the layer's input.
    """
    return _Compiler(program, layout, absolute, parallel, disguise, generator).compile()


class _Compiler:
    def __init__(
        self,
        program: Program,
        layout: Layout,
        absolute: bool,
        parallel: bool,
        disguise: Disguise,
        generator: "Generator",
    ) -> None:
        self.program, self.layout, self.disguise, self.generator = program, layout, disguise, generator
        self.parallel, self.absolute = parallel, absolute
        self.rotary = None if absolute else rotary_of(program.length)
        self.turns = 0 if absolute else TURNS
        self.book = codebook(program, layout, absolute, self.turns, disguise, generator)
        self.codes, self.width, self.head_width = self.book.codes, self.book.width, self.book.head_width
        token = self.codes[program.token]
        self.opens = token.reader @ token.mark(program.sinks)
        self.ahead = program.run(program.sinks[:1])

    def compile(self) -> Compiled:
        import torch

        layers: list[LayerWeights] = []
        neurons: dict[str, tuple[tuple[int, tuple[str, ...]], ...]] = {}
        token = self.codes[self.program.token]
        square = 1.0 + self.absolute + self.disguise.anchor**2
        units = [self._units(layer) for layer in range(self.layout.layers)]
        size = max(8, *(sum(len(u.rows) for _, u in group) for group in units))
        for layer, group in enumerate(units):
            before = square
            for part in self.layout.at(layer, heads=True):
                # Copies agree, so that k of them add up to k times the amplitude, once.
                square += part.amplitude**2 * part.copies
                square += self.book.tremor**2 if isinstance(part.spec, Aggregate) else 0.0
            heads = self._heads(layer, self._norm(before))
            mlp, placed = self._mlp(group, size, self._norm(before if self.parallel else square))
            neurons |= placed
            square += sum(part.amplitude**2 for part, _ in group)
            layers.append(self._shaken(LayerWeights(*heads, *mlp)))
        votes = torch.zeros(len(self.program.vocabulary), self.width, dtype=torch.float64)
        for output in self.program.outputs:
            code = self.codes[output.variable]
            related = torch.zeros(len(code.labels), len(votes), dtype=torch.float64)
            for word, tokens in output.tokens:
                for answer in tokens:
                    related[code.index(word), self.program.vocabulary.index(answer)] = 1.0
            read = matching(code.geometry, torch.eye(len(votes), dtype=torch.float64), related)
            votes += LOGIT * output.weight * (code.reader @ read).T
        position = self.codes[POSITION].vectors if self.absolute else None
        return Compiled(
            token.vectors + self.codes[ANCHOR].vectors,
            position,
            tuple(layers),
            votes * self._norm(square),
            self.codes,
            neurons,
            self.turns,
        )

    def _shaken(self, layer: LayerWeights) -> LayerWeights:
        """Weight noise. It does not read the anchor: that would be a bias, and a large one."""
        import torch

        if not self.disguise.noise:
            return layer
        anchor = self.codes[ANCHOR].basis[0]
        shaken: dict[str, Tensor] = {}
        for name in ("q", "k", "v", "o", "w_in", "w_out"):
            weight: Tensor = getattr(layer, name)
            used = weight[weight != 0]
            typical = used.square().mean().sqrt() if len(used) else 0.0
            noise = torch.randn(weight.shape, dtype=weight.dtype, generator=self.generator) * typical
            if name in ("q", "k", "v", "w_in"):
                noise = noise - anchor[:, None] * (anchor @ noise).unsqueeze(-2)
            shaken[name] = weight + self.disguise.noise * noise
        return replace(layer, **shaken)

    def _norm(self, square: float) -> float:
        return (square / self.width + EPS) ** 0.5

    def _attention(self, part: Part) -> Attention:
        spec, codes, beta = part.spec, self.codes, part.beta or self.disguise.beta
        if isinstance(spec, Previous):
            if self.rotary is not None:
                return previous(spec.offset, self.rotary, beta, self.width)
            place = codes[POSITION]
            spec = Select(POSITION, spec.source, POSITION, shifted(place.labels, spec.offset))
        if not isinstance(spec, Select):
            raise TypeError(f"no head computes a {type(spec).__name__}")
        presence, ramp = None, None
        if part.role == "backup":
            primary = codes[part.writes]
            presence = primary.reader @ primary.mark(primary.labels)
        if self.absolute:
            import torch

            ramp = codes[POSITION].reader @ torch.arange(self.program.length, dtype=torch.float64)
        query = codes[spec.query] if spec.query else None
        distance = self.program.length - 1
        return look(spec, query, codes[spec.key], self.opens, beta, ramp, self.rotary, presence, distance)

    def _heads(self, layer: int, norm: float) -> tuple["Tensor", ...]:
        import torch

        count, d, dh, turns = self.layout.heads, self.width, self.head_width, self.turns
        q, k, v = (torch.zeros(count, d, dh, dtype=torch.float64) for _ in range(3))
        q_bias, k_bias, v_bias = (torch.zeros(count, dh, dtype=torch.float64) for _ in range(3))
        o = torch.zeros(count, dh, d, dtype=torch.float64)
        gain = dh**0.25
        for part in self.layout.at(layer, heads=True):
            h = part.head
            if isinstance(part.spec, Aggregate):
                source = self.codes[part.spec.source]
                mean, rest = self.codes[part.writes], self.codes[rest_of(part.writes)]
                v[h, :, 0], v_bias[h, 1] = source.reader @ source.mark(part.spec.among), 1.0
                o[h, 0], o[h, 1] = mean.vectors[0], rest.vectors[0]
            else:
                attention = self._attention(part)
                n = attention.q.shape[1]
                q[h, :, turns : turns + n], q_bias[h, turns : turns + n] = attention.q, attention.q_bias
                k[h, :, turns : turns + n], k_bias[h, turns : turns + n] = attention.k, attention.k_bias
                if attention.q_turn is not None and attention.k_turn is not None:
                    q_bias[h, :turns], k_bias[h, :turns] = (
                        attention.q_turn.flatten(),
                        attention.k_turn.flatten(),
                    )
                source = part.spec.source if isinstance(part.spec, Previous) else part.spec.value  # pyright: ignore
                nowhere = None
                if part.role == "backup":
                    nowhere = (self.ahead[source][0], self.book.nowhere[part.writes])
                read, write = copied(self.codes[source], self.codes[part.writes], 1 / part.copies, nowhere)
                v[h, :, : read.shape[1]], o[h, : read.shape[1]] = read, write
            if self.disguise.rotate_heads:
                self._turn(q[h], q_bias[h], k[h], k_bias[h])
                spin, size = rotation(dh, self.generator), float(self._uniform(0.5, 2.0))
                v[h], v_bias[h], o[h] = size * v[h] @ spin, size * v_bias[h] @ spin, spin.T @ o[h] / size
        return gain * norm * q, gain * q_bias, gain * norm * k, gain * k_bias, norm * v, v_bias, o

    def _turn(self, q: "Tensor", q_bias: "Tensor", k: "Tensor", k_bias: "Tensor") -> None:
        """A private rotation of queries and keys; rotary pairs turn together, so that phases keep their difference."""
        import torch

        turns = self.turns
        spin = torch.zeros(self.head_width, self.head_width, dtype=torch.float64)
        spin[turns:, turns:] = rotation(self.head_width - turns, self.generator)
        for i in range(turns // 2):
            angle, j = self._uniform(0.0, 6.2832), i + turns // 2
            spin[i, i] = spin[j, j] = angle.cos()
            spin[i, j], spin[j, i] = angle.sin(), -angle.sin()
        for tensor in (q, q_bias, k, k_bias):
            tensor.copy_(tensor @ spin)

    def _uniform(self, low: float, high: float, count: tuple[int, ...] = ()) -> "Tensor":
        import torch

        return low + (high - low) * torch.rand(count, dtype=torch.float64, generator=self.generator)

    def _units(self, layer: int) -> list[tuple[Part, Units]]:
        found: list[tuple[Part, Units]] = []
        for part in self.layout.at(layer, heads=False):
            codes = {name: self.codes[name] for name, _ in inputs_of(part.spec)}
            means: tuple[float, ...] = ()
            if isinstance(part.spec, Aggregate):
                codes["mean"], means = self.codes[mean_of(part.writes)], self._means(part.spec)
            found.append((part, units_of(part.spec, codes, self.codes[part.writes], self.disguise.kappa, means)))
        return found

    def _means(self, spec: Aggregate) -> tuple[float, ...]:
        """The means that occur in samples of the program, also when more tokens follow that do not count."""
        means: set[float] = set()
        for given in self.program.sample(200):
            words = self.program.run(given.tokens)[spec.source]
            hits = [word in spec.among for word in words] + [False] * (self.program.length - len(words))
            means |= {sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))}
        return tuple(means)

    def _mlp(
        self, group: list[tuple[Part, Units]], size: int, norm: float
    ) -> tuple[tuple["Tensor", ...], dict[str, tuple[tuple[int, tuple[str, ...]], ...]]]:
        import torch

        readable = [self.codes[name] for name, v in self.layout.graph.items() if isinstance(v, Token)]
        all_units = [units for _, units in group]
        used = sum(len(units.rows) for units in all_units)
        scale = 2 / self.disguise.kappa if self.disguise.decoys else 0.0
        all_units.append(idle_units(size - used, readable, self.disguise.kappa, scale, self.generator))
        order = torch.arange(size)
        if self.disguise.permute:
            order = torch.randperm(size, generator=self.generator)
        seat, at = order.argsort().tolist(), 0
        placed: dict[str, tuple[tuple[int, tuple[str, ...]], ...]] = {}
        for part, units in group:
            placed[part.writes] = tuple((seat[at + i], row) for i, row in enumerate(units.rows))
            at += len(units.rows)
        w_in = torch.cat([units.w_in for units in all_units], dim=1)[:, order] * norm
        b_in = torch.cat([units.b_in for units in all_units])[order]
        w_out = torch.cat([units.w_out for units in all_units])[order]
        b_out = torch.stack([units.b_out for units in all_units]).sum(0)
        if self.disguise.rescale:
            size_of = self._uniform(0.7, 1.4, (size,))
            w_in, b_in, w_out = w_in * size_of, b_in * size_of, w_out / size_of[:, None]
        return (w_in, b_in, w_out, b_out), placed
