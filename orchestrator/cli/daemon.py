"""``rekindle serve``, ``demo``, ``doctor``, ``db …``, ``backup`` and ``gc``."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.base import OPTIONS, command, group
from orchestrator.cli.client import LONG_S, post
from orchestrator.cli.output import is_json, note, print_json, say, size
from orchestrator.cli.progress import busy
from orchestrator.errors import BadInput, RekindleError, Unavailable

Url = Annotated[
    str | None,
    typer.Option(
        "--database-url", metavar="URL", help="postgresql://… or sqlite:///…; default: SQLite in the home folder."
    ),
]
db = group("Look after the database.")


def add_to(app: typer.Typer) -> None:
    """Put these commands under the program."""
    command(app, "serve", "rekindle serve", "rekindle serve --home /srv/rekindle --port 7500")(serve)
    command(app, "demo", "rekindle demo", "rekindle demo --keep")(demo)
    command(app, "doctor", "rekindle doctor", "rekindle doctor --check daemon --output json")(doctor)
    command(app, "backup", "rekindle backup /backups/2026-05-01")(backup)
    command(app, "gc", "rekindle gc --dry-run", "rekindle gc")(collect)
    app.add_typer(db, name="db")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; default 7433; 0: any free one.")
    ] = None,
    database_url: Url = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Allow a --host that other machines can reach.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Host name that requests may use for this daemon; repeatable."),
    ] = None,
) -> None:
    """Run the daemon until it is interrupted; running jobs go on, and the next daemon adopts them."""
    from orchestrator import daemon_settings

    settings = daemon_settings.load(
        {
            "server": {
                "host": host,
                "port": port,
                "allow_remote": allow_remote or None,
                "allowed_hosts": tuple(allowed_host) if allowed_host else None,
            },
            "database": {"url": database_url},
        }
    )
    server = settings.server
    _check_reach(server.host, allow_remote=server.allow_remote, named=bool(server.allowed_hosts))
    from orchestrator import daemon
    from orchestrator.service.translate import translated

    gpus = settings.resources.gpus
    with translated():
        code = daemon.run(
            home=OPTIONS.place.root,
            host=server.host,
            port=server.port,
            database_url=settings.database.url,
            allowed_hosts=server.allowed_hosts,
            cpus=settings.resources.cpus,
            gpus=daemon_settings.found_gpus() if gpus is None else gpus,
            log_level=settings.logging.level,
        )
    raise typer.Exit(code)


def demo(keep: Annotated[bool, typer.Option("--keep", help="Leave the daemon running at the end.")] = False) -> None:
    """Tell the whole story on real text: register, retrain, gate, promote, roll back.

    Its folder is kept for a look around; after Ctrl-C it is removed.
    """
    from orchestrator.demo import run

    raise typer.Exit(run(keep=keep))


def doctor(
    check: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Run only this check; repeatable. `jobs` imports torch.")
    ] = None,
) -> None:
    """Look for problems: home, database, records, artifacts, daemon, disk, job environment."""
    from orchestrator.cli.doctor import examine

    findings = examine(OPTIONS.place, check or ())
    if is_json():
        print_json([{"check": one.check, "ok": one.ok, "message": one.message} for one in findings])
    else:
        for one in findings:
            say(f"{'ok  ' if one.ok else 'FAIL'}  {one.check}: {one.message}")
    broken = [one for one in findings if not one.ok]
    if broken:
        raise RekindleError(f"{len(broken)} of {len(findings)} checks failed; {broken[0].check}: {broken[0].message}")


@command(db, "upgrade", "rekindle db upgrade", "rekindle db upgrade --database-url postgresql://host/rekindle")
def upgrade(database_url: Url = None) -> None:
    """Bring the database's schema up to date; SQLite is backed up first. The daemon must be stopped."""
    from orchestrator import daemon_settings
    from orchestrator.service.translate import translated
    from storage.database import Database

    home = OPTIONS.place
    _refuse_if_served()
    chosen = daemon_settings.load({"database": {"url": database_url}}).database.url
    if chosen is None:
        _make(home.root)
    with translated():
        database = Database.open(chosen or f"sqlite:///{home.database_path}")
        try:
            database.upgrade()
        finally:
            database.close()
    if is_json():
        print_json({"upgraded": True})
    else:
        say("the database is up to date")


def backup(directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")]) -> None:
    """Copy the database and the artifacts while the daemon runs."""
    with busy("copying the database and the artifacts", left=f"the backup to {directory} goes on"):
        done = post("/backup", {"directory": str(directory.expanduser().absolute())}, timeout_s=LONG_S)
    if is_json():
        print_json(done)
        return
    say(f"{done['objects']} objects, {size(done['bytes'])}, are in {done['directory']}")
    if done["database"] is None:
        note("the database is PostgreSQL; copy it with pg_dump")


def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
) -> None:
    """Delete what nothing needs any more: first it is marked, and an hour later it is deleted."""
    with busy("looking for what nothing needs", left="the collection goes on"):
        done = post("/gc", {"dry_run": dry_run}, timeout_s=LONG_S)
    if is_json():
        print_json(done)
        return
    would = "would be " if dry_run else ""
    say(
        f"{done['deleted']} objects ({size(done['deleted_bytes'])}) {would}deleted, "
        f"{done['marked']} ({size(done['marked_bytes'])}) {would}marked for the next time"
    )


def _check_reach(host: str, *, allow_remote: bool, named: bool) -> None:
    if _is_loopback(host) or (allow_remote and named):
        return
    raise BadInput(f"{host} can be reached by other machines; that needs --allow-remote and --allowed-host")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse_if_served() -> None:
    import fcntl
    import json

    path = OPTIONS.place.lock_file
    if not path.exists():
        return
    with path.open("r+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            pid = json.loads(path.read_text(encoding="utf-8") or "{}").get("pid", "unknown")
            raise RekindleError(f"a daemon (pid {pid}) serves {OPTIONS.place.root}; stop it, then upgrade") from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"the home {folder} cannot be written ({error.strerror}); see --home") from error
