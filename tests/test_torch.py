"""Agreement with PyTorch in float64, to 1e-10, over random combinations of every option.

PyTorch has neither z_loss nor softcap: both are composed here from its own operations.  Gradients come from its
reverse mode, directional derivatives from its forward mode, Hessian products from forward over reverse, K tangents
from vmap.  Where PyTorch differs by design (0 · ∞, no row that counts) a test of its own says so, at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import softgrad

torch = pytest.importorskip("torch", reason="agreement with PyTorch needs torch: pip install 'softgrad[dev]'")
functional = torch.nn.functional
# torch's own forward mode is written with it
pytestmark = pytest.mark.filterwarnings(r"ignore:.*torch\.jit\.script:DeprecationWarning")

SEEDS = range(16)
CASES_PER_SEED = 20  # 320 in all
TOLERANCE = 1e-10


@dataclass(frozen=True)
class Drawn:
    """One random call: the arguments for softgrad, and the same function in torch of logits with classes on axis 1."""

    logits: np.ndarray
    targets: np.ndarray
    axis: int
    options: dict[str, Any]
    grad_output: Any
    tangents: np.ndarray  # (K, *logits.shape)

    def __str__(self) -> str:
        shown = {key: getattr(value, "shape", value) for key, value in self.options.items()}
        return f"logits {self.logits.shape}, targets {self.targets.shape}, axis {self.axis}, {shown}"

    def torch_loss(self, z: Any) -> Any:
        """The loss in torch, of logits in softgrad's own layout."""
        option = self.options
        if option["softcap"] is not None:
            z = option["softcap"] * torch.tanh(z / option["softcap"])
        dense = self.targets.ndim == self.logits.ndim
        # torch's class axis is 1, or 0 of a single row.
        place = 0 if z.ndim == 1 else 1
        t = torch.from_numpy(self.targets)
        t = t.to(z.dtype).movedim(self.axis, place) if dense else t.to(torch.int64)
        z = z.movedim(self.axis, place)
        weight = None if option["weight"] is None else torch.from_numpy(option["weight"])
        ignore_index = option["ignore_index"]
        loss = functional.cross_entropy(
            z,
            t,
            weight=weight,
            # softgrad lets it be anything where it has no say; torch wants it out of the way.
            ignore_index=-(10**6) if ignore_index is None or dense else ignore_index,
            label_smoothing=option["label_smoothing"],
            reduction=option["reduction"],
        )
        counts = torch.ones(z.movedim(place, -1).shape[:-1], dtype=bool)
        if not dense and ignore_index is not None:
            counts = t != ignore_index
        z_part = option["z_loss"] * torch.logsumexp(z, place) ** 2
        z_part = torch.where(counts, z_part, 0.0)
        if option["reduction"] == "mean":
            return loss + z_part.sum() / counts.sum()
        return loss + (z_part.sum() if option["reduction"] == "sum" else z_part)

    def torch_scaled(self, z: Any) -> Any:
        """The number whose gradient softgrad gives: the sum of the losses times grad_output."""
        scale = 1.0 if self.grad_output is None else torch.as_tensor(self.grad_output, dtype=torch.float64)
        return (self.torch_loss(z) * scale).sum()


def draw(rng: np.random.Generator) -> Drawn:
    shape = tuple(int(n) for n in rng.integers(1, 6, rng.integers(1, 5)))
    axis = int(rng.integers(-len(shape), len(shape)))
    classes = int(rng.integers(2, 40))
    shape, rows = (*shape[:axis], classes, *shape[axis:][1:]), (*shape[:axis], *shape[axis:][1:])
    logits = rng.normal(size=shape) * 10.0 ** rng.uniform(-1, 1.3)
    weight = rng.uniform(0.1, 3.0, classes) if rng.random() < 0.5 else None
    ignore_index: int | None = [-100, None, int(rng.integers(classes)), 2**40][rng.integers(4)]
    if rng.random() < 0.3:
        targets = rng.random(shape) * (rng.random(shape) < 0.7)
    else:
        targets = rng.integers(0, classes, rows)
        if ignore_index is not None:
            targets = np.where(rng.random(rows) < 0.3, ignore_index, targets)
            first = np.zeros(targets.ndim, int)
            # Some row must count: torch's own answer for none is the business of another test.
            targets[tuple(first)] = 0 if ignore_index != 0 else 1
    reduction = str(rng.choice(["none", "sum", "mean"]))
    grad_output: Any = [None, float(rng.normal()), np.array(rng.normal())][rng.integers(3)]
    if reduction == "none" and rng.random() < 0.6:
        grad_output = rng.normal(size=rows)
    options = {
        "weight": weight,
        "ignore_index": ignore_index,
        "label_smoothing": float(rng.choice([0.0, 0.1, 1.0, rng.random()])),
        "z_loss": float(rng.choice([0.0, 1e-4, 0.3])),
        "softcap": [None, 5.0, 30.0][rng.integers(3)],
        "reduction": reduction,
    }
    return Drawn(logits, targets, axis, options, grad_output, rng.normal(size=(int(rng.integers(1, 4)), *shape)))


def agree(mine: Any, theirs: Any, what: str, case: object) -> None:
    theirs = theirs.detach().numpy()
    mine = np.asarray(mine)
    assert mine.shape == theirs.shape, (what, str(case))
    assert mine.dtype == theirs.dtype, (what, str(case))
    scale = max(1.0, float(np.abs(theirs).max(initial=0.0)))
    off = float(np.abs(mine - theirs).max(initial=0.0)) / scale
    assert off <= TOLERANCE, f"{what} differs by {off:.1e}: {case}"


def jvps(f: Callable[[Any], Any], z: Any, v: Any) -> Any:
    """The derivatives of f at z along the tangents v, which have one leading axis."""
    return torch.func.vmap(lambda tangent: torch.func.jvp(f, (z,), (tangent,))[1])(v)


@pytest.mark.parametrize("seed", SEEDS)
def test_cross_entropy_family(backend: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(CASES_PER_SEED):
        losses_agree(draw(rng))


def losses_agree(case: Drawn) -> None:
    z, v = torch.from_numpy(case.logits), torch.from_numpy(case.tangents)
    loss, grad = case.torch_loss(z), torch.func.grad(case.torch_scaled)(z)
    slopes, curved = jvps(case.torch_loss, z, v), jvps(torch.func.grad(case.torch_scaled), z, v)

    point = {"logits": case.logits, "targets": case.targets, "axis": case.axis, **case.options}
    scaled = {"grad_output": case.grad_output, **point}
    agree(softgrad.cross_entropy(**point), loss, "loss", case)
    agree(softgrad.cross_entropy_grad(**scaled), grad, "gradient", case)
    both = softgrad.cross_entropy_value_and_grad(**scaled)
    agree(both[0], loss, "loss of both", case)
    agree(both[1], grad, "gradient of both", case)
    agree(softgrad.cross_entropy_jvp(case.tangents, **point), slopes, "JVPs", case)
    agree(softgrad.cross_entropy_hvp(case.tangents, **scaled), curved, "HVPs", case)
    one = case.tangents[0]
    agree(softgrad.cross_entropy_jvp(one, **point), slopes[0], "JVP", case)
    agree(softgrad.cross_entropy_hvp(one, **scaled), curved[0], "HVP", case)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("seed", range(4))
def test_softmax_family(backend: str, seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        products_agree(draw(rng), name)


def products_agree(case: Drawn, name: str) -> None:
    z, axis, v = torch.from_numpy(case.logits), case.axis, torch.from_numpy(case.tangents)

    def f(z: Any) -> Any:
        return getattr(torch, name)(z, axis)

    value, pull = torch.func.vjp(f, z)
    pushed, pulled = jvps(f, z, v), torch.func.vmap(lambda g: pull(g)[0])(v)
    agree(getattr(softgrad, name)(case.logits, axis=axis), value, name, case)
    jvp, vjp = getattr(softgrad, f"{name}_jvp"), getattr(softgrad, f"{name}_vjp")
    for point in ({"logits": case.logits}, {"probs" if name == "softmax" else "log_probs": value.numpy()}):
        where = f"{name} from {list(point)}"
        agree(jvp(case.tangents, axis=axis, **point), pushed, f"JVPs of {where}", case)
        agree(vjp(case.tangents, axis=axis, **point), pulled, f"VJPs of {where}", case)
        agree(jvp(case.tangents[0], axis=axis, **point), pushed[0], f"JVP of {where}", case)
        # Two leading axes are no more than one, folded.
        agree(vjp(case.tangents[None], axis=axis, **point), pulled[None], f"VJPs of {where}", case)


@pytest.mark.parametrize("seed", range(4))
def test_logsumexp_and_the_full_jacobian(backend: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        case = draw(rng)
        z = torch.from_numpy(case.logits)
        agree(softgrad.logsumexp(case.logits, axis=case.axis), torch.logsumexp(z, case.axis), "logsumexp", case)
        rows = z.movedim(case.axis, -1)
        each = torch.func.vmap(torch.func.jacrev(lambda row: torch.softmax(row, -1)))(rows.reshape(-1, rows.shape[-1]))
        jacobian = softgrad.softmax_jacobian(logits=case.logits, axis=case.axis)
        agree(jacobian, each.reshape(*rows.shape, rows.shape[-1]), "Jacobian", case)


# --- where torch differs by design ------------------------------------------------------------------------------------


def test_a_masked_class_without_target_mass_costs_nothing_where_torch_says_nan(backend: str) -> None:
    z = np.array([[0.5, -np.inf, 1.0]])
    t = np.array([[0.25, 0.0, 0.75]])
    assert torch.isnan(functional.cross_entropy(torch.from_numpy(z), torch.from_numpy(t)))  # 0 · ∞
    without = softgrad.cross_entropy(z[:, [0, 2]], t[:, [0, 2]])
    np.testing.assert_allclose(softgrad.cross_entropy(z, t), without, rtol=1e-15)


def test_when_no_row_counts_the_loss_is_nan_as_in_torch_and_the_gradient_zero(backend: str) -> None:
    z, t = np.array([[0.5, 2.0, 1.0]]), np.array([-100])
    leaf = torch.from_numpy(z).requires_grad_()
    loss = functional.cross_entropy(leaf, torch.from_numpy(t))
    assert torch.isnan(loss)
    mine, grad = softgrad.cross_entropy_value_and_grad(z, t)
    assert np.isnan(mine)
    np.testing.assert_array_equal(grad, np.zeros_like(z))
