"""Export what stands on a base model: ``python -m strategies.inference SPEC.json``, for those who may not import torch.

The specification holds ``model`` (a folder) with an ``adapter``, which is merged in, or a ``bank``, which becomes a
folder that routes by itself; ``task``, ``trust_remote_code`` and ``folder`` (the result, which appears there whole or
not at all).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from strategies.contract import ModelFiles
from strategies.errors import StrategyError
from strategies.settings import Closed, Task


class ExportSpec(Closed):
    """What is to be exported, and where to."""

    model: str
    adapter: str | None = None
    bank: str | None = None
    task: Task
    trust_remote_code: bool
    folder: str


def main(path: str) -> int:
    """Export as the file at ``path`` says; the exit code of the process."""
    spec = ExportSpec.model_validate_json(Path(path).read_bytes())
    folder = Path(spec.folder)
    # A name of its own, for two may be exporting to one folder.
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(spec, beside / folder.name, place=folder)
        (beside / folder.name).rename(folder)
    except StrategyError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return 0


def _write(spec: ExportSpec, beside: Path, *, place: Path) -> None:
    from strategies.inference.export import export_merged
    from strategies.inference.export_bank import export_bank
    from strategies.inference.load import adapter_labels

    labels = adapter_labels(Path(spec.adapter)) if spec.adapter else ()
    files = ModelFiles(
        path=spec.model,
        adapter=spec.adapter,
        bank=spec.bank,
        trust_remote_code=spec.trust_remote_code,
        labels=labels,
    )
    if spec.bank is None:
        export_merged(files, spec.task, beside)
    else:
        export_bank(files, spec.task, beside, place=place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
