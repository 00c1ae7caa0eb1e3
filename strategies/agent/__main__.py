"""``python -m strategies.agent < REQUEST``: a data mixing agent, and what tiny runs say; see ``requests``."""

from __future__ import annotations

import json
import sys
import time

from pydantic import ValidationError

from strategies.agent.requests import REQUEST, Asked, Collect, Graph, Report, Teach
from strategies.contract import EXIT_REFUSED
from strategies.errors import StrategyError
from strategies.settings import Json

EVERY_S = 0.2


def main(text: str) -> int:
    """Carry a request out; exit code 65 with one line where it cannot be."""
    try:
        found = _carry_out(REQUEST.validate_json(text), _Teller())
    except (StrategyError, ValidationError, OSError) as error:
        print(" ".join(str(error).split())[:500], file=sys.stderr)
        return EXIT_REFUSED
    print(json.dumps({"result": found}), flush=True)
    return 0


def _carry_out(request: Asked, tell: _Teller) -> Json:
    from strategies.agent.commands.collect import collect
    from strategies.agent.commands.evaluate import evaluate
    from strategies.agent.commands.graph import graph
    from strategies.agent.commands.teach import teach

    if isinstance(request, Collect):
        return collect(request, tell)
    if isinstance(request, Teach):
        return teach(request, tell)
    if isinstance(request, Graph):
        return graph(request, tell)
    return evaluate(request, tell)


class _Teller:
    """Prints reports, the last of a phase always, the others at most a few times a second."""

    def __init__(self) -> None:
        self._told = 0.0

    def __call__(self, report: Report) -> None:
        now = time.monotonic()
        if report.step in (0, report.steps) or now - self._told >= EVERY_S:
            self._told = now
            print(report.model_dump_json(), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.stdin.read()))
