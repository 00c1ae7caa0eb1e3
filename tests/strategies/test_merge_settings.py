"""What a merge does where nothing is set."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from strategies.settings import Json
from strategies.settings.merging import Merge


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("task-arithmetic", {"lam": 0.4}),
        ("ties", {"density": 0.2, "lam": 1.0}),
        ("dare", {"drop": 0.9, "then": "mean", "density": 0.2, "lam": 1.0, "seed": 1234}),
        ("pcb", {"ratio": 0.1, "lam": 1.2, "clip": 1e-4}),
        ("fisher", {"floor": 1e-6, "normalise": True, "estimator": "sampled", "documents": 256}),
        ("interpolate", {"share": 0.5}),
    ],
)
def test_what_a_method_is_not_told_is_as_published(kind: str, values: Json) -> None:
    adapter: TypeAdapter[Merge] = TypeAdapter(Merge)
    assert adapter.validate_python({"kind": kind}).model_dump() == {"kind": kind, **values}
