"""``python -m strategies.jobs JOBDIR``: carry out the job described by ``job.json`` in that directory."""

from __future__ import annotations

import sys
from pathlib import Path

from strategies.jobs.runtime import Runtime


def main(arguments: list[str]) -> int:
    """Exit code of the job; life signs begin before anything heavy is imported."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m strategies.jobs JOBDIR", file=sys.stderr)
        return 2
    runtime = Runtime(Path(arguments[0]).resolve())
    runtime.start()
    try:
        from strategies.jobs.run import carry_out

        return carry_out(runtime)
    finally:
        runtime.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
