"""How long a version of one gigabyte takes to store, to publish and to roll back to.

Run: ``python -m tests.benchmarks.publish --preset quick|standard``; quick stores a quarter of that.
The model is made of random blocks; the second version shares half of its tensors with the first. Beside our figures
stands the raw cost on the same disk at the same time: write and fsync of the same bytes.
"""

from __future__ import annotations

import json
import os
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from storage import publishing
from storage.artifacts import ArtifactStore
from tests.benchmarks.harness import Record, small_main
from tests.manifests import verify_manifest

MEGABYTES = {"quick": 256, "standard": 1024}
TENSORS = 200
BLOCK_BYTES = 1 << 20


def write_model(folder: Path, *, size: int, changed: float) -> None:
    """A safetensors model whose last ``changed`` share of tensors is new."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    each = size // TENSORS
    header = {
        f"layer.{n}": {"dtype": "U8", "shape": [each], "data_offsets": [n * each, (n + 1) * each]}
        for n in range(TENSORS)
    }
    encoded = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for number in range(TENSORS):
            fresh = number >= TENSORS * (1 - changed)
            block = os.urandom(BLOCK_BYTES) if fresh else bytes([number]) * BLOCK_BYTES
            file.write((block * (each // BLOCK_BYTES + 1))[:each])
        file.flush()
        os.fsync(file.fileno())  # or the disk would still be busy with it while the store is measured


def raw_write(folder: Path, size: int) -> None:
    """Write and fsync as many bytes, without a hash or a name."""
    block = os.urandom(BLOCK_BYTES)
    with (folder / "raw").open("wb") as file:
        for _ in range(size // BLOCK_BYTES):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    (folder / "raw").unlink()


def seconds(task: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def measure(root: Path, size: int) -> dict[str, float | int]:
    """All figures, in seconds."""
    store = ArtifactStore(root / "store")
    published = root / "published"
    write_model(root / "one", size=size, changed=0.0)
    write_model(root / "two", size=size, changed=0.5)
    hashes: list[str] = []
    figures: dict[str, float | int] = {"bytes": size, "tensors": TENSORS}
    figures["raw_write_s"] = seconds(lambda: raw_write(root, size))
    figures["store_s"] = seconds(lambda: hashes.append(store.add_folder(root / "one").hash))
    figures["store_again_s"] = seconds(lambda: store.add_folder(root / "one"))
    hashes.append(store.add_folder(root / "two").hash)
    for number, name in enumerate(hashes, 1):
        answer = {"answer/model": name}
        figures[f"publish_{number}_s"] = seconds(partial(publishing.publish, store, answer, published, f"v{number}"))
    swaps = [seconds(partial(publishing.point_live, published, f"v{turn % 2 + 1}")) for turn in range(50)]
    figures["rollback_link_median_s"] = statistics.median(swaps)
    back = {"answer/model": hashes[0]}
    publishing.point_live(published, "v2")
    figures["rollback_s"] = seconds(partial(roll_back, store, back, published))
    figures["verify_s"] = seconds(lambda: verify_manifest(store, hashes[0]))
    figures["stored_share"] = sum(stored.bytes for stored, _ in store.objects.list()) / (2 * size)
    return figures


def roll_back(store: ArtifactStore, answer: dict[str, str], published: Path) -> None:
    """What a rollback does with files."""
    publishing.publish(store, answer, published, "v3")
    publishing.point_live(published, "v3")


def measured(megabytes: int) -> Record:
    """All figures, of files in the temporary folder."""
    with tempfile.TemporaryDirectory() as root:
        return {name: round(value, 4) for name, value in measure(Path(root), megabytes << 20).items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the JSON."""
    return small_main("publish", MEGABYTES, measured, argv)


if __name__ == "__main__":
    sys.exit(main())
