"""Page faults of a process that takes and frees the same large block again and again, as training does."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

BLOCK = 64 << 20
TURNS = 10
PAGES = TURNS * BLOCK // 4096
PROGRAM = f"""
import resource
from strategies.jobs.memory import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({TURNS}):
        block = b"x" * {BLOCK}
        del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), keep_freed(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has its own ways")
def test_a_block_that_was_freed_is_taken_again_without_a_fault_a_page() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout.split()
    assert int(found[0]) > 0.9 * PAGES
    assert found[1] == "True"
    assert int(found[2]) < 0.2 * PAGES
