"""``rekindle demo``: a stream, three batches, a refused candidate and a rollback, on text that Python carries."""

from orchestrator.demo.story import run

__all__ = ["run"]
