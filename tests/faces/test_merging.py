"""``rekindle merge`` from the order to the version."""

from __future__ import annotations

import pytest

from tests.faces.face import Face
from tests.flow.harness import NEW, write_documents


@pytest.mark.slow
def test_what_a_merge_warns_of_is_told_with_its_version(working: Face) -> None:
    assert working.add_stream("news", "--every", "6h", "--set", "gate.mode=record").code == 0
    assert working.rekindle("ingest", "news", str(write_documents(working.root / "one.jsonl", NEW, 40))).code == 0
    assert working.rekindle("retrain", "news", "--wait").code == 0
    asked = ("merge", "news/1", "news/2", "--method", "dare")
    for more in ((), ("--output", "json")):
        made = working.rekindle(*asked, "--wait", *more)
        assert (made.code, "warning: changes are large" in made.err) == (0, True)
    assert "warning: changes are large" in working.rekindle(*asked).err
    assert "warning" not in working.rekindle("merge", "news/1", "news/2", "--wait").err
    assert "warning   changes are large" in working.rekindle("version", "show", "news/3").out
    assert "warning" not in working.rekindle("version", "show", "news/4").out
