"""What a job sees of the daemon's environment: an allow-list, so that no secret can pass by oversight."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from orchestrator.jobs.executors.contract import Grant

ALLOWED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"),
        *("XDG_CACHE_HOME", "TORCH_HOME", "TRITON_CACHE_DIR"),
    }
)
ALLOWED_PREFIXES = ("LC_", "CUDA_")


def environment(parent: Mapping[str, str], *, grant: Grant, modules: tuple[str, ...]) -> dict[str, str]:
    """The whole environment of an attempt that was given ``grant`` and runs ``modules``."""
    passed = {name: value for name, value in parent.items() if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)}
    roots = missing_roots(modules)
    return {
        **passed,
        **({"PYTHONPATH": os.pathsep.join(roots)} if roots else {}),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Bytes of a result depend on the number of threads; sleeping threads leave the cores to other jobs.
        "OMP_NUM_THREADS": str(grant.cpus),
        "MKL_NUM_THREADS": str(grant.cpus),
        "OPENBLAS_NUM_THREADS": str(grant.cpus),
        "OMP_WAIT_POLICY": "PASSIVE",
        # The order in which nvidia-smi counts.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in grant.gpus),
    }


@cache
def missing_roots(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Folders of our own packages that a bare ``python -P`` does not find: none where the project is installed."""
    names = sorted({module.partition(".")[0] for module in modules})
    ours = {name: _root(name) for name in names}
    lookup = "import importlib.util, sys; print(*(int(bool(importlib.util.find_spec(n))) for n in sys.argv[1:]))"
    clean = {name: value for name, value in os.environ.items() if name in ALLOWED}
    answer = subprocess.run(
        [sys.executable, "-P", "-c", lookup, *names],
        env=clean,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = dict(zip(names, answer.stdout.split(), strict=True))
    return tuple(sorted({ours[name] for name in names if found[name] != "1"}))


def _root(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"package {package!r} is not importable; run rekindle from its own environment")
    return str(Path(next(iter(spec.submodule_search_locations))).resolve().parent)
