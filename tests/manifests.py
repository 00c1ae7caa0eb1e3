"""Whether a stored folder is whole."""

from __future__ import annotations

from storage.artifacts import ArtifactStore


def verify_manifest(store: ArtifactStore, name: str) -> None:
    """Read a manifest and every object of it again; raises as the store does."""
    for entry in store.read_manifest(name).entries:
        for one in (entry.object_hash, *(patch.object_hash for patch in entry.patches)):
            store.verify(one)
