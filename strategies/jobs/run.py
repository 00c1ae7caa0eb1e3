"""From ``job.json`` to ``result.json`` and an exit code."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from storage.files import write_atomic
from strategies.contract import EXIT_CANCELLED, EXIT_REFUSED, FORMAT, JobKind, JobResult, JobSpec
from strategies.errors import BadPlan, BadState, Diverged, Refused, StrategyError
from strategies.jobs.memory import keep_freed
from strategies.jobs.runtime import Runtime, Stopped, say


def carry_out(runtime: Runtime) -> int:
    """Run the job; every failure ends as one line that begins with ``error:``."""
    try:
        spec = read_spec(runtime.directory / "job.json")
        runtime.orphan_after_s = spec.orphan_after_s
        write_result(runtime.directory / "result.json", work(spec, runtime))
    except Stopped as stopped:
        say(f"stopped: {stopped}")
        runtime.phase = "stopped"
        return EXIT_CANCELLED
    except (Refused, BadPlan, BadState, Diverged) as error:
        return _failed(runtime, str(error), EXIT_REFUSED)
    except StrategyError as error:
        return _failed(runtime, str(error), 1)
    except Exception as error:
        traceback.print_exc(limit=20)
        return _failed(runtime, f"{type(error).__name__}: {str(error)[:500]}", 1)
    runtime.phase = "done"
    return 0


def read_spec(path: Path) -> JobSpec:
    """``job.json``; refuses a newer format by name."""
    try:
        found = json.loads(path.read_bytes())
        if isinstance(found, dict) and found.get("format") != FORMAT:
            raise Refused(f"job.json has format {found.get('format')}; this version reads format {FORMAT}: upgrade it")
        return JobSpec.model_validate(found)
    except (OSError, ValidationError, ValueError) as error:
        raise Refused(f"job.json cannot be read: {' '.join(str(error).split())[:300]}") from error


def work(spec: JobSpec, runtime: Runtime) -> JobResult:
    """Do what the spec says. Heavy libraries are imported here, under a heartbeat."""
    runtime.enter("importing")
    _set_environment(spec)
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(spec.threads)
    keep_freed()
    return _task(spec.work.kind)(spec, spec.work, runtime)


def _task(kind: JobKind) -> Callable[[JobSpec, Any, Runtime], JobResult]:  # noqa: PLR0911 - one for each kind of work
    match kind:
        case "measure":
            from strategies.jobs.measure import measure

            return measure
        case "evaluate":
            from strategies.jobs.evaluate import evaluate

            return evaluate
        case "merge":
            from strategies.jobs.merge import merge

            return merge
        case "proxy":
            from strategies.jobs.proxy import run_proxies

            return run_proxies
        case "fit":
            from strategies.jobs.fit import fit

            return fit
        case "probe":
            from strategies.jobs.probe import probe

            return probe
        case "train":
            from strategies.jobs.train import train

            return train
        case _:
            raise Refused(f"this version cannot carry out work of kind {kind}: upgrade it")


def write_result(path: Path, result: JobResult) -> None:
    """The last file a job writes, whole or not at all."""
    write_atomic(path, result.model_dump_json().encode())


def _set_environment(spec: JobSpec) -> None:
    # Tokenizers' own threads would fight with torch's for the cores that were granted.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if spec.threads > 1 else "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _failed(runtime: Runtime, message: str, code: int) -> int:
    say(f"error: {' '.join(message.split())}")
    runtime.phase = "failed"
    return code
