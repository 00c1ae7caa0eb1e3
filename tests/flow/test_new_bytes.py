"""What a version adds to the store: measured on its manifests when the candidate is made, kept in its facts."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from orchestrator.flow import records
from storage.tables import ManifestEntry, StoredObject, Version
from tests.flow.harness import NEW, Daemon


def test_a_candidate_names_the_share_of_its_bytes_that_its_parent_lacks(daemon: Daemon) -> None:
    daemon.add_stream(gate={"repair": False})
    daemon.ingest(NEW)
    daemon.retrain("naive")
    with daemon.app.database.read() as session:
        first, made = session.scalars(select(Version).order_by(Version.number)).all()
        files = [
            {
                row.path: row.bytes
                for row in session.execute(
                    select(ManifestEntry.path, StoredObject.bytes)
                    .join(StoredObject, StoredObject.hash == ManifestEntry.object_hash)
                    .where(ManifestEntry.manifest_hash == records.artifacts_of(session, one.id)["answer/model"])
                )
            }
            for one in (first, made)
        ]
        share = files[1]["tokenizer_words.json"] / sum(files[1].values())
        assert files[0]["tokenizer_words.json"] != files[1]["tokenizer_words.json"]
        assert made.facts["new_bytes"] == {"share": pytest.approx(share, abs=1e-4), "bound": None}
        assert 0 < share < 1
