"""A stand-in for the job process, standard library only: its behaviour is the job's name.

It speaks the job directory's contract: heartbeat, progress, checkpoints, cancel, result and exit codes.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0
HERE = Path()


def replace(name: str, value: dict[str, Any]) -> None:
    temporary = HERE / f".{name}.new"
    temporary.write_text(json.dumps(value))
    temporary.rename(HERE / name)


def beat(step: int) -> None:
    replace("heartbeat.json", {"pid": os.getpid(), "step": step, "phase": "toy"})
    replace("progress.json", {"phase": "toy", "step": step, "steps": 10})


def finish(**more: Any) -> None:
    folder = HERE / "out" / "model"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(more))
    (HERE / "out" / "scores.parquet").write_bytes(b"per example")
    (HERE / "out" / "rows.bits").write_bytes(b"\x07")
    score = {"eval_set": 1, "name": "anchor", "sha256": "0" * 64, "metric": "loss", "value": 1.0, "value_select": 1.0}
    score |= {"value_judge": 1.0, "examples": 3, "tokens": 3, "bytes": 9, "results": "out/scores.parquet"}
    replace("result.json", {"kind": "measure", "artifacts": {"answer/model": "out/model"}, "scores": [score]})


def hold(until: str = "release", *, beats: bool = True, heeds_cancel: bool = True) -> None:
    end = time.monotonic() + DEADLINE_S
    step = 0
    while time.monotonic() < end and not (HERE / until).exists():
        step += 1
        if beats:
            beat(step)
        if heeds_cancel and (HERE / "cancel").exists():
            (HERE / "checkpoints" / f"step-{step}").mkdir(parents=True)
            sys.exit(75)
        time.sleep(0.02)


def resume(spec: dict[str, Any]) -> None:
    earlier = [Path(one) / "checkpoints" / "step-1" for one in spec["resume_from"]]
    if earlier:
        finish(resumed_from=str(earlier[0].resolve()), found=earlier[0].is_dir())
        return
    (HERE / "checkpoints" / "step-1").mkdir(parents=True)
    hold()


def hold_and_finish() -> None:
    hold()
    finish()


def stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hold(heeds_cancel=False)


def escape() -> None:
    finish()
    result = json.loads((HERE / "result.json").read_text())
    replace("result.json", {**result, "artifacts": {"answer/model": "../../.."}})


def child() -> None:
    """Leave a child process in the group, as a data loader would be."""
    pid = os.fork()
    if pid == 0:
        time.sleep(DEADLINE_S)
        os._exit(0)
    (HERE / "child").write_text(str(pid))
    stubborn()


def main() -> None:
    spec = json.loads((HERE / "job.json").read_text())
    behaviours = {
        "make": lambda: finish(threads=spec["threads"], model=spec["model"]["path"]),
        "environment": lambda: finish(variables=dict(os.environ), path=sys.path, cwd=os.getcwd()),
        "hold": hold_and_finish,
        "wait-for-sigterm": lambda: hold(heeds_cancel=False),
        "resume": lambda: resume(spec),
        "stubborn": stubborn,
        "silent": lambda: hold(beats=False),
        "crash": lambda: sys.exit("the toy broke"),
        "refuse": lambda: (print("row 3 has no text"), sys.exit(65)),
        "yield": lambda: sys.exit(75),
        "nothing": lambda: None,
        "escape": escape,
        "child": child,
    }
    beat(0)
    behaviours[spec["name"]]()


if __name__ == "__main__":
    HERE = Path(sys.argv[1])
    main()
