"""Where everything lies on disk: one folder, the home."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Home:
    """The home folder and the fixed places in it."""

    root: Path

    @property
    def database_path(self) -> Path:
        """The embedded database."""
        return self.root / "rekindle.db"

    @property
    def artifacts(self) -> Path:
        """The content-addressed store."""
        return self.root / "artifacts"

    @property
    def jobs(self) -> Path:
        """Job directories."""
        return self.root / "jobs"

    @property
    def spool(self) -> Path:
        """Pushed and fetched files, until they are ingested."""
        return self.root / "spool"

    @property
    def published(self) -> Path:
        """Published models, one folder a stream."""
        return self.root / "published"

    @property
    def cache(self) -> Path:
        """What can be made again: models put together for jobs."""
        return self.root / "cache"

    @property
    def logs(self) -> Path:
        """The daemon's log."""
        return self.root / "logs"

    @property
    def backups(self) -> Path:
        """Copies of the database made before a schema upgrade."""
        return self.root / "backups"

    @property
    def token_file(self) -> Path:
        """The token of the local user, readable by that user alone."""
        return self.root / "token"

    @property
    def lock_file(self) -> Path:
        """Held by the daemon while it runs; its text says who."""
        return self.root / "daemon.json"

    def job_directory(self, job_id: int, attempt: int) -> Path:
        """The directory of one attempt."""
        return self.jobs / str(job_id) / str(attempt)

    def create(self) -> None:
        """Make the folders, the root readable by its owner alone.

        Raises:
            OSError: the home cannot be written.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.artifacts, self.jobs, self.spool, self.published, self.cache, self.logs):
            folder.mkdir(mode=0o700, exist_ok=True)
