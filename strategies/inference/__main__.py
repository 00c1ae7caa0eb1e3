"""Merge an adapter into its base: ``python -m strategies.inference SPEC.json``, for those who may not import torch.

The specification holds ``model`` and ``adapter`` (folders), ``task``, ``trust_remote_code`` and ``folder`` (the result,
which appears there whole or not at all).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from strategies.contract import ModelFiles
from strategies.errors import StrategyError
from strategies.settings import Closed, Task


class MergeSpec(Closed):
    """What is to be merged, and where to."""

    model: str
    adapter: str
    task: Task
    trust_remote_code: bool
    folder: str


def main(path: str) -> int:
    """Merge as the file at ``path`` says; the exit code of the process."""
    from strategies.inference.export import export_merged
    from strategies.inference.load import adapter_labels

    spec = MergeSpec.model_validate_json(Path(path).read_bytes())
    files = ModelFiles(
        path=spec.model,
        adapter=spec.adapter,
        trust_remote_code=spec.trust_remote_code,
        labels=adapter_labels(Path(spec.adapter)),
    )
    folder = Path(spec.folder)
    beside = folder.with_name(f".{folder.name}.merging")
    try:
        export_merged(files, spec.task, beside)
        beside.rename(folder)
    except StrategyError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
