"""What changed of a tensor, over the whole tensor that an earlier model has: what stayed of it is stored once.

Fused projections hold several matrices of which a training may move some; an object a tensor would store the others
anew with them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from storage.errors import ArtifactCorrupt, ArtifactMissing
from storage.folders import MAX_PATH
from storage.safetensors import BITS, Tensor, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from storage.objects import Chunks, Objects

    Bytes = NDArray[np.uint8]
    Files = dict["Span", bytes]


@dataclass(frozen=True, order=True)
class Span:
    """``start:stop`` along dimension ``dim`` of a tensor."""

    dim: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Patch:
    """The object, a tensor in a file, that stands for a span of a larger tensor."""

    span: Span
    object_hash: str
    bytes: int

    def path(self, tensor: str) -> str:
        """How SQL names it among the entries of a manifest."""
        return _path(tensor, self.span)


@dataclass(frozen=True, kw_only=True)
class Stayed:
    """Spans of a model's tensors that a training is said to have left as they are in stored manifests."""

    manifests: Sequence[str]
    spans: Mapping[str, Sequence[Span]]


def read(objects: Objects, name: str, patches: Sequence[Patch]) -> tuple[Tensor, Bytes]:
    """The file of a tensor's object with the patches laid over it in their order, and where in it the tensor stands.

    Raises:
        ArtifactMissing: an object is not there.
        ArtifactCorrupt: one was changed on disk.
    """
    tensor, found = _checked(objects, name)
    for patch in patches:
        part, data = _checked(objects, patch.object_hash)
        place = _view(found[tensor.start :], tensor.shape, patch.span)
        place[:] = data[part.start :].reshape(place.shape)
    return tensor, found


def moved(tensor: Tensor, chunks: Chunks, before: tuple[Tensor, Bytes], stayed: Sequence[Span]) -> Files | None:
    """The file of a patch for each span beside those that are said to have stayed, where its numbers are others.

    ``chunks`` are the tensor's file, its header first. None: the earlier tensor has another type or shape, a span that
    is said to have stayed has moved, or the tensor cannot be cut so; it is to be stored whole.
    """
    import numpy as np

    earlier, file = before
    if (tensor.dtype, tensor.shape) != (earlier.dtype, earlier.shape) or not _can_be_cut(tensor, stayed):
        return None
    new, old = np.frombuffer(b"".join(islice(chunks(), 1, None)), np.uint8), file[earlier.start :]

    def is_equal(span: Span) -> bool:
        return np.array_equal(_view(new, tensor.shape, span), _view(old, tensor.shape, span))

    if not all(map(is_equal, stayed)):
        return None
    return {one: _file(tensor, new, one) for one in _beside(stayed, tensor.shape) if not is_equal(one)}


def laid_over(earlier: Sequence[Patch], later: Sequence[Patch]) -> tuple[Patch, ...]:
    """All patches but those that a later one covers."""
    return (*(one for one in earlier if not any(_covers(new.span, one.span) for new in later)), *later)


def _can_be_cut(tensor: Tensor, stayed: Sequence[Span]) -> bool:
    """Whether the spans are of one dimension, inside, and leave something out that SQL can name.

    Numbers of less than a byte have no place of their own.
    """
    return (
        tensor.length > 0
        and BITS[tensor.dtype] >= 8
        and len({one.dim for one in stayed}) == 1
        and stayed[0].dim < len(tensor.shape)
        and all(0 <= one.start < one.stop <= tensor.shape[one.dim] for one in stayed)
        and 0 < max((len(_path(tensor.name, one)) for one in _beside(stayed, tensor.shape)), default=0) <= MAX_PATH
    )


def _beside(stayed: Sequence[Span], shape: Sequence[int]) -> list[Span]:
    dim, found, at = stayed[0].dim, [], 0
    for one in sorted(stayed):
        if one.start > at:
            found.append(Span(dim, at, one.start))
        at = max(at, one.stop)
    return found + ([Span(dim, at, shape[dim])] if at < shape[dim] else [])


def _path(tensor: str, span: Span) -> str:
    return f"{tensor}[{span.dim}:{span.start}:{span.stop}]"


def _file(tensor: Tensor, data: Bytes, span: Span) -> bytes:
    part = _view(data, tensor.shape, span)
    shape = (*tensor.shape[: span.dim], span.stop - span.start, *tensor.shape[span.dim + 1 :])
    return replace(tensor, shape=shape, start=0, length=part.size).header() + part.tobytes()


def _view(data: Bytes, shape: Sequence[int], span: Span) -> Bytes:
    """The bytes of a span: (product of the dimensions before it, bytes that lie together)."""
    rows = data.reshape(math.prod(shape[: span.dim]), -1)
    step = rows.shape[1] // shape[span.dim]
    return rows[:, span.start * step : span.stop * step]


def _covers(one: Span, other: Span) -> bool:
    return one.dim == other.dim and one.start <= other.start and other.stop <= one.stop


def _checked(objects: Objects, name: str) -> tuple[Tensor, Bytes]:
    import numpy as np

    path = objects.path(name)
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError as error:
        raise ArtifactMissing(f"object {name} was collected meanwhile; restore it from a backup") from error
    if hashlib.sha256(data.data).hexdigest() != name:
        raise ArtifactCorrupt(f"object {name} was changed on disk; restore it from a backup")
    with path.open("rb") as file:
        (tensor,) = read_header(file, path)
    return tensor, data
