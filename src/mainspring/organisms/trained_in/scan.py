"""The selective scan of Mamba for training: the recurrence of the stock model with gradients that cost less.

    state[t] = exp(dt[t] A) state[t-1] + dt[t] x[t] B[t]
    y[t]     = (C[t] . state[t] + D x[t]) silu(z[t])

The reference of transformers discretises whole sequences and cuts a slice out of them at every step, and the gradient of
a slice is as large as its sequence: time goes with the square of the length. Here every step discretises for itself.

What it does not do: change a model. It stands in for the reference while the context is open, and gives way to it in every
call that is not of this kind (a state that is wanted back, no bias, no gate).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["scan", "scanning"]


def scan(x: "Tensor", dt: "Tensor", a: "Tensor", b: "Tensor", c: "Tensor", d: "Tensor", z: "Tensor", bias: "Tensor") -> "Tensor":
    """[batch, inner, t]: x, dt and the gate z [batch, inner, t], a [inner, n], b and c [batch, n, t], d and bias [inner]."""
    import torch

    silu, softplus = torch.nn.functional.silu, torch.nn.functional.softplus
    dt = softplus(dt + bias[:, None])
    state, read = torch.zeros(1, dtype=x.dtype, device=x.device), list["Tensor"]()
    for step, given, into, out in zip(dt.unbind(2), (dt * x).unbind(2), b.unbind(2), c.unbind(2), strict=True):
        state = torch.exp(step[:, :, None] * a) * state + given[:, :, None] * into[:, None]
        read.append((state @ out[:, :, None])[:, :, 0])
    return (torch.stack(read, dim=2) + x * d[:, None]) * silu(z)


@contextmanager
def scanning() -> Iterator[None]:
    """While it is open, Mambas of transformers scan by `scan`."""
    from transformers.models.mamba import modeling_mamba

    home: Any = modeling_mamba
    stock: Any = getattr(home, "mamba_selective_scan", None)

    def stand_in(
        x: "Tensor",
        dt: "Tensor",
        A: "Tensor",
        B: "Tensor",
        C: "Tensor",
        D: "Tensor | None" = None,
        z: "Tensor | None" = None,
        delta_bias: "Tensor | None" = None,
        delta_softplus: bool = False,
        return_last_state: bool = False,
        **others: Any,
    ) -> Any:
        if return_last_state or not delta_softplus or D is None or z is None or delta_bias is None:
            kept: dict[str, Any] = {"delta_softplus": delta_softplus, "return_last_state": return_last_state, **others}
            return stock(x, dt, A, B, C, D=D, z=z, delta_bias=delta_bias, **kept)
        return scan(x, dt, A, B, C, D, z, delta_bias)

    if stock is not None:
        home.mamba_selective_scan = stand_in
    try:
        yield
    finally:
        if stock is not None:
            home.mamba_selective_scan = stock
