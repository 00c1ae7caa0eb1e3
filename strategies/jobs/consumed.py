"""Which documents of a snapshot a job used: a bitmap beside its result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from strategies.contract import Consumed, SourceFile
from strategies.training.ledger import bitmap


def consumed(source: SourceFile, flags: NDArray[np.bool_], *, samples: int, directory: Path) -> Consumed:
    """Write ``flags``, one a row of the snapshot, below ``directory``; ``samples`` rows were taken of its documents."""
    path = f"out/consumed/{source.batch}-{source.role}.bits"
    (directory / "out" / "consumed").mkdir(parents=True, exist_ok=True)
    (directory / path).write_bytes(bitmap(flags))
    return Consumed(
        batch=source.batch,
        sha256=source.sha256,
        role="trained" if source.role == "new" else "replayed",
        bitmap=path,
        documents=int(flags.sum()),
        samples=samples,
    )
