"""A job process whose model is a list of words: it speaks the job directory's contract and starts in a blink.

A known word costs 1 nat, an unknown one 5. Training learns the words of its train rows; without replay it forgets the
rest, with replay it keeps what it knew. A merge knows what any of its models knew; a repair finds nothing for a
candidate that knows the word "hopeless", and fails where it knows "broken". So the flow's tests can tell forgetting
from learning without torch. It reads and writes JSON alone, as a job of any language may: the daemon checks it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Json = dict[str, Any]
KNOWN, UNKNOWN = 1.0, 5.0
BROKEN_PROBE = 13
"""A probe on this many documents fails."""
HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(64).encode()
TENSOR = b"".join([len(HEADER).to_bytes(8, "little"), HEADER, bytes(4)])


def write_model(folder: Path, words: set[str]) -> None:
    """A model folder that the store takes: a config, a tensor, and the words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["ToyForCausalLM"], "model_type": "toy"}))
    (folder / "model.safetensors").write_bytes(TENSOR)
    (folder / "tokenizer_words.json").write_text(json.dumps(sorted(words)))


def main(directory: Path) -> int:
    spec = json.loads((directory / "job.json").read_text())
    _heartbeat(directory)
    kind, model = spec["work"]["kind"], Path(spec["model"]["path"])
    if os.environ.get("TOY_FAIL") == kind or (model / "break").exists():
        print("toy failure")
        return 1
    found = _WORK[kind](directory, spec["work"], _words(model))
    temporary = directory / "result.json.tmp"
    temporary.write_text(json.dumps({"kind": kind, **found}))
    temporary.rename(directory / "result.json")
    return 0


def _heartbeat(directory: Path) -> None:
    started = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    beat = {
        "boot_id": boot_id,
        "pid": os.getpid(),
        "process_started": started,
        "step": 0,
        "phase": "toy",
        "time": time.time(),
    }
    (directory / "heartbeat.json").write_text(json.dumps(beat))


def _train(directory: Path, work: Json, words: set[str]) -> Json:
    learned: set[str] = set()
    consumed = []
    template = work["template"]
    mixing = template["mixing"]
    for source in work["sources"]:
        table = pq.ParquetFile(source["path"]).read()
        rows = [row for row in table.to_pylist() if row["split"] == "train"]
        if source["role"] == "new" or mixing["share"] != "0.0":
            learned |= {word for row in rows for word in row["text"].split()}
            consumed.append(_consumed(directory, source, table.num_rows, rows))
    keeps = bool(mixing["old"]) and float(mixing["share"]) > 0
    write_model(directory / "out" / "model", learned | words if keeps else learned)
    artifacts = {"answer/model": "out/model"}
    for role in (*template["state"], "evidence/log"):
        folder = directory / "out" / role.replace("/", "-")
        folder.mkdir(parents=True)
        (folder / "state.json").write_text("{}")
        artifacts[role] = str(folder.relative_to(directory))
    return {"artifacts": artifacts, "consumed": consumed, "facts": {"toy": True}}


def _consumed(directory: Path, source: Json, size: int, rows: list[Json]) -> Json:
    bits = bytearray(-(-size // 8))
    for row in rows:
        bits[row["row"] // 8] |= 1 << row["row"] % 8
    name = f"rows-{source['name']}.bin"
    (directory / name).write_bytes(bits)
    role = "trained" if source["role"] == "new" else "replayed"
    counts = {"documents": len(rows), "samples": len(rows)}
    return {"batch": source["batch"], "sha256": source["sha256"], "role": role, "bitmap": name, **counts}


def _measure(directory: Path, work: Json, words: set[str]) -> Json:
    measured = []
    for source in work["sources"]:
        rows = [row for row in pq.ParquetFile(source["path"]).read().to_pylist() if row["split"] == "train"]
        tokens = sum(len(row["text"].split()) for row in rows)
        loss = sum(_nats(row["text"], words) for row in rows) / max(1, tokens)
        counts = {"documents": len(rows), "tokens": tokens, "rows": len(rows)}
        measured.append({"name": source["name"], "batch": source["batch"], "loss": loss, **counts})
    if work["sample"] is None:
        return {"measured": measured}
    (directory / "out").mkdir(exist_ok=True)
    count = work["sample"]["documents"]
    lines = [json.dumps({"text": f"{' '.join(sorted(words))} sample number{n}"}) for n in range(count)]
    (directory / "out" / "samples.jsonl").write_text("\n".join(lines))
    return {"measured": measured, "samples": "out/samples.jsonl"}


def _evaluate(directory: Path, work: Json, words: set[str]) -> Json:
    (directory / "out").mkdir(exist_ok=True)
    return {"scores": [_score(directory, one, words) for one in work["sets"]]}


def _score(directory: Path, one: Json, words: set[str]) -> Json:
    rows = pq.ParquetFile(one["path"]).read().to_pylist()
    results = [
        {
            "digest": row["digest"],
            "half": row["half"],
            "tokens": len(row["text"].split()),
            "bytes": len(row["text"].encode()),
            "loss": _nats(row["text"], words),
        }
        for row in rows
    ]
    path = f"out/results-{one['id']}.parquet"
    pq.write_table(pa.Table.from_pylist(results), directory / path)
    return {
        **{"eval_set": one["id"], "name": one["name"], "sha256": one["sha256"], "metric": "loss"},
        "value": _mean(results),
        "value_select": _mean([row for row in results if row["half"] == "select"]),
        "value_judge": _mean([row for row in results if row["half"] == "judge"]),
        "examples": len(results),
        "tokens": sum(row["tokens"] for row in results),
        "bytes": sum(row["bytes"] for row in results),
        "results": path,
    }


def _merge(directory: Path, work: Json, words: set[str]) -> Json:
    """The union of all words; the trials of a repair look like those of the real job, and dare warns."""
    known = [_words(Path(one["model"]["path"])) for one in work["parents"]]
    facts: Json = {"kept": [one["role"] for one in work["parents"]][:1]}
    method = work["method"]["kind"]
    if method == "dare":
        facts["warnings"] = ["changes are large"]
    if method == "repair":
        trial = {"method": {"kind": "interpolate", "share": 0.25}}
        if "broken" in known[0]:
            raise ValueError("a toy failure")
        hopeless = "hopeless" in known[0]
        facts = {"trials": {"interpolate-0.25": trial}, "chosen": None if hopeless else "interpolate-0.25"}
        if hopeless:
            return {"facts": facts}
    write_model(directory / "out" / "model", words.union(*known))
    return {"artifacts": {"answer/model": "out/model"}, "facts": facts}


def _words(folder: Path) -> set[str]:
    return set(json.loads((folder / "tokenizer_words.json").read_text()))


def _probe(directory: Path, work: Json, words: set[str]) -> Json:
    """What is planned last does best."""
    assert work["documents"] != BROKEN_PROBE, "toy failure"
    labels = list(work["trials"])
    trials = [
        {
            "round": 0,
            "candidate": label,
            "steps": work["trials"][label][0]["steps"],
            "tokens": 0,
            "score": -float(at),
            "judged": None,
        }
        for at, label in enumerate(labels)
    ]
    found = {"chosen": labels[-1], "reason": f"{labels[-1]} did best", "trials": trials}
    return {"facts": {"probe": found}}


def _mean(results: list[Json]) -> float:
    tokens = sum(row["tokens"] for row in results)
    return sum(row["loss"] for row in results) / tokens if tokens else 0.0


def _nats(text: str, words: set[str]) -> float:
    return sum(KNOWN if word in words else UNKNOWN for word in text.split())


_WORK: dict[str, Any] = {
    "train": _train,
    "measure": _measure,
    "evaluate": _evaluate,
    "merge": _merge,
    "probe": _probe,
}

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
