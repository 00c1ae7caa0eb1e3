"""Low-rank changes of a matrix: sums of them cut back to a rank, in the space of B·A and never of B and A apart.

``mean(B A)`` is not ``mean(B) mean(A)``: factors of adapters that began independently share no basis (METHODS 3.6).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """A change ``b @ a`` of a matrix: ``b`` (out, r) with the adapter's scale in it, ``a`` (r, in).

    All that is made of it is computed in the dtype of both.
    """

    b: Tensor
    a: Tensor

    def dense(self) -> Tensor:
        """The change itself, (out, in)."""
        return self.b @ self.a

    def norm(self) -> float:
        """Frobenius norm, without making the product."""
        return float(torch.linalg.matrix_norm(_core(self)[1]))


def stacked(terms: Sequence[tuple[float, LowRank]]) -> LowRank:
    """``sum of c * b @ a``, exact: the ranks add up."""
    return LowRank(b=torch.cat([factor * one.b for factor, one in terms], 1), a=torch.cat([one.a for _, one in terms]))


def truncated(change: LowRank, rank: int) -> tuple[LowRank, float]:
    """The nearest change of rank ``rank`` by QR and a small SVD, and the Frobenius norm of what was cut off.

    ``b = U sqrt(S)`` and ``a = sqrt(S) V^T``; missing ranks are filled with zeros.
    """
    left, core, right = _core(change)
    return _cut(left, core, right, rank)


def truncated_dense(change: Tensor, rank: int) -> tuple[LowRank, float]:
    """The same for a change that is no product, (out, in)."""
    return _cut(None, change, None, rank)


def factor_gap(members: Sequence[LowRank]) -> tuple[float, float]:
    """What averaging the factors apart would miss: norms of ``mean(b) mean(a) - mean(b a)`` and of ``mean(b a)``."""
    share = 1 / len(members)
    mean = stacked([(share, one) for one in members])
    apart = LowRank(b=sum(one.b for one in members) * share, a=sum(one.a for one in members) * share)  # type: ignore[arg-type]
    return stacked([(1.0, apart), (-1.0, mean)]).norm(), mean.norm()


def relative_norm(norms: Iterable[tuple[float, float]]) -> float:
    """How large parts are beside their wholes, all together: of pairs of both norms. 0 where there is nothing."""
    pairs = list(norms)
    whole = sum(norm**2 for _, norm in pairs)
    return math.sqrt(sum(norm**2 for norm, _ in pairs) / whole) if whole > 0 else 0.0


def _core(change: LowRank) -> tuple[Tensor, Tensor, Tensor]:
    left, upper = torch.linalg.qr(change.b)
    right, lower = torch.linalg.qr(change.a.T)
    return left, upper @ lower.T, right


def _cut(left: Tensor | None, core: Tensor, right: Tensor | None, rank: int) -> tuple[LowRank, float]:
    u, sizes, vh = torch.linalg.svd(core, full_matrices=False)
    roots = sizes[:rank].sqrt()
    b, a = u[:, :rank] * roots, roots[:, None] * vh[:rank]
    b = b if left is None else left @ b
    a = a if right is None else a @ right.T
    missing = rank - b.shape[1]
    if missing > 0:
        b, a = torch.nn.functional.pad(b, (0, missing)), torch.nn.functional.pad(a, (0, 0, 0, missing))
    return LowRank(b=b, a=a), float(torch.linalg.vector_norm(sizes[rank:]))
