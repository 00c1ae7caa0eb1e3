"""Ingest beside its bare parts: documents a CPU second, peak memory.

``python -m tests.benchmarks.ingest --preset quick|standard``

The bare parts are what no ingest can do without: parsing, the digest, the MinHash signature, writing Parquet. The ratio
says what exactly-once, dedupe against the history, the split and SQL cost on top.
"""

from __future__ import annotations

import hashlib
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.home import Home
from orchestrator.ingest.arrival import ingest
from orchestrator.ingest.sketches import signature
from orchestrator.settings import StreamSettings
from storage.artifacts import ArtifactStore
from storage.database import Database, now
from storage.tables import Stream, StreamRevision
from tests.benchmarks.harness import small_main

WORDS = 160
DOCUMENTS = {"quick": 5_000, "standard": 20_000}


class Parts:
    """A home with one stream."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root=root)
        self.home.create()
        self.database = Database.open(f"sqlite:///{self.home.database_path}")
        self.database.upgrade()
        self.store = ArtifactStore(self.home.artifacts)
        settings = StreamSettings(name="bench", model="base").model_dump(mode="json")
        with self.database.write() as session:
            session.add(Stream(id="b", name="bench", task="causal-lm", state="active", split_key="k", created_at=now()))
            session.flush()
            session.add(
                StreamRevision(
                    stream_id="b",
                    number=1,
                    settings=settings,
                    origins={},
                    settings_hash="0",
                    actor="bench",
                    created_at=now(),
                )
            )


def write_documents(path: Path, count: int, seed: int) -> Path:
    """Documents of about a kilobyte, one in twenty a near-duplicate of the one before."""
    chance = random.Random(seed)
    vocabulary = [f"{chance.getrandbits(32):x}" for _ in range(20_000)]
    words: list[str] = []
    with path.open("w") as file:
        for number in range(count):
            words = [*words[:-1], "changed"] if number % 20 == 19 else chance.choices(vocabulary, k=WORDS)
            file.write(json.dumps({"id": f"{seed}-{number}", "text": " ".join(words)}) + "\n")
    return path


def bare_parts(path: Path, target: Path) -> None:
    """Parse, digest, sketch, write."""
    texts = []
    with path.open("rb") as file:
        for line in file:
            text = json.loads(line)["text"]
            hashlib.sha256(text.encode()).hexdigest()
            signature(text)
            texts.append(text)
    pq.write_table(pa.table({"text": texts}), target, compression="zstd")


def measure(count: int) -> dict[str, Any]:
    """Two batches of ``count`` documents, the second against the history of the first."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        first, second = (write_documents(root / f"{seed}.jsonl", count, seed) for seed in (1, 2))
        parts = Parts(root / "home")
        times = [_seconds(lambda path=path: _ingest(parts, path)) for path in (first, second)]
        bare = _seconds(lambda: bare_parts(second, root / "bare.parquet"))
        parts.database.close()
        size = second.stat().st_size
    return {
        "documents": count,
        "bytes": size,
        "documents_per_cpu_second": [round(count / one) for one in times],
        "bare_documents_per_cpu_second": round(count / bare),
        "ratio": [round(bare / one, 2) for one in times],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _ingest(parts: Parts, path: Path) -> None:
    report = ingest(parts, "b", path=path, name=path.name, actor="bench")
    if report.outcome != "accepted":
        raise SystemExit(f"the batch was not accepted: {report.reason}")


def _seconds(work: Any) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the JSON."""
    return small_main("ingest", DOCUMENTS, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
