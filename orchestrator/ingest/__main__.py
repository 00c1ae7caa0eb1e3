"""``python -P -m orchestrator.ingest SPEC.json``: one ingest in a process of its own, with bounded memory."""

from __future__ import annotations

import sys

from orchestrator.ingest.run import main

sys.exit(main(sys.argv[1:]))
