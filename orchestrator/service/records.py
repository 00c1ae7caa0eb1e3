"""What the faces show: one closed record a noun. Scripts rely on the field names."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from strategies.settings import Closed


class TriggerRecord(Closed):
    """A trigger with its next fire and its last verdict."""

    stream: str
    name: str
    kind: str
    state: str
    settings: dict[str, Any]
    timezone: str
    next_fire: datetime | None
    last_due: datetime | None
    last_verdict: str | None
    last_reason: str | None


class TriggerTest(Closed):
    """What a trigger would say now; nothing is started."""

    stream: str
    name: str
    kind: str
    retrain: bool
    reason: str
    next_fires: tuple[datetime, ...]


class StrategyRecord(Closed):
    """A strategy: its screws, or none where it chooses among the others, by its rules."""

    name: str
    summary: str
    sources: tuple[str, ...]
    composition: dict[str, Any] | None
    rules: tuple[dict[str, str], ...] = ()
    note: str = ""
    """What was measured of its choices, where that is why they are as they are."""


class SettingRecord(Closed):
    """One resolved value and where it comes from."""

    key: str
    value: Any
    origin: str


class StreamRecord(Closed):
    """A stream in a list."""

    name: str
    id: str
    task: str
    state: str
    model: str
    strategy: str
    live: int | None
    pending_batches: int
    pending_documents: int
    next_fire: datetime | None
    revision: int
    error: str | None
    created_at: datetime


class StreamDetail(StreamRecord):
    """A stream with each setting's origin, its triggers and what waits."""

    settings: tuple[SettingRecord, ...]
    triggers: tuple[TriggerRecord, ...]
    pending: tuple[int, ...]
    held: tuple[int, ...]
    open_decision: int | None
    published: str | None
    warnings: tuple[str, ...]


class SettingsPreview(Closed):
    """What ``--dry-run`` of a registration or change shows."""

    name: str
    settings: tuple[SettingRecord, ...]
    warnings: tuple[str, ...]


class BatchRecord(Closed):
    """A batch; ``content_hash`` is that of its present snapshot."""

    id: int
    stream: str
    kind: str
    name: str
    state: str
    reason: str | None
    documents: int
    train_documents: int
    heldout_documents: int
    duplicates: int
    near_duplicates: int
    conflicts: int
    leaked: int
    quarantined: int
    refusals: int
    synthetic: bool
    content_hash: str
    arrival_hash: str
    created_at: datetime


class QuarantineRecord(Closed):
    """A row that was not kept."""

    file: str
    line: int
    reason: str
    excerpt: str


class BatchDetail(BatchRecord):
    """A batch with its quarantined rows and the versions that saw it, themselves or by an ancestor."""

    labels: tuple[str, ...]
    quarantine: tuple[QuarantineRecord, ...]
    versions: tuple[int, ...]


class IngestRecord(Closed):
    """What became of one pushed file; ``outcome`` is accepted, copy or refused."""

    stream: str
    file: str
    outcome: str
    reason: str | None
    batch: int | None
    documents: int
    duplicates: int
    quarantined: int
    quarantine: tuple[QuarantineRecord, ...]


class JobRecord(Closed):
    """A job in a list."""

    id: int
    stream: str
    kind: str
    name: str
    state: str
    attempt: int
    max_attempts: int
    progress: dict[str, Any]
    error: str | None
    decision: int | None
    version: int | None
    needs: tuple[str, ...]
    cpus: int
    gpus: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class AttemptRecord(Closed):
    """One process that carried out a job."""

    number: int
    state: str
    host: str
    pid: int | None
    gpus: tuple[int, ...]
    exit_code: int | None
    error: str | None
    directory: str
    started_at: datetime
    finished_at: datetime | None


class JobDetail(JobRecord):
    """A job with its attempts, what it was told and what it answered."""

    attempts: tuple[AttemptRecord, ...]
    made: int | None
    spec: dict[str, Any]
    result: dict[str, Any] | None
    artifacts: dict[str, Any] | None


class LogPiece(Closed):
    """A piece of a job's log, and where to read on."""

    job: int
    attempt: int
    state: str
    text: str
    next_offset: int
    complete: bool


class EvaluationRecord(Closed):
    """The score of a version on one eval set."""

    version: int
    eval_set: str
    kind: str
    metric: str
    value: float
    examples: int
    created_at: datetime


class TransferRecord(Closed):
    """Continual-learning metrics of a stream's live line; for losses the scores are negated, so higher is better."""

    stages: list[int]
    tasks: list[list[str]]
    metric: str | None
    average_performance: float | None
    average_over_time: float | None
    backward_transfer: float | None
    forward_transfer: float | None
    forgetting: float | None
    plasticity: float | None


class VersionRecord(Closed):
    """A version in a list; ``scores`` maps an eval set to the value there."""

    stream: str
    number: int
    state: str
    strategy: str
    parents: tuple[int, ...]
    job: int | None
    decision: int | None
    batches: tuple[int, ...]
    created_at: datetime
    scores: dict[str, float]


class VerdictRecord(Closed):
    """What the gate said of a version."""

    outcome: str
    mode: str
    compared_with: int
    reason: str
    details: dict[str, Any]
    created_at: datetime


class PromotionRecord(Closed):
    """When a version went live, why, and by whom."""

    kind: str
    previous: int | None
    reason: str
    actor: str
    created_at: datetime


class Edge(Closed):
    """An edge of the lineage."""

    parent: int
    role: str
    weight: float


class VersionDetail(VersionRecord):
    """A version with its edges, evaluations, verdicts, promotions and artifacts."""

    edges: tuple[Edge, ...]
    rejection: str | None
    pinned: bool
    model_hash: str
    evaluations: tuple[EvaluationRecord, ...]
    verdict: VerdictRecord | None
    promotions: tuple[PromotionRecord, ...]
    artifacts: dict[str, str]
    facts: dict[str, Any]


class MergeRecord(Closed):
    """A merge as it is queued, or with ``dry_run`` as it would be; ``made`` is the version once there is one."""

    stream: str
    dry_run: bool
    method: dict[str, Any]
    base: int
    parents: tuple[int, ...]
    weights: tuple[float, ...]
    into: str
    batches: tuple[int, ...]
    job: int | None = None
    state: str | None = None
    made: int | None = None


class LineageRecord(Closed):
    """A version and its place in the lineage."""

    number: int
    state: str
    strategy: str
    parents: tuple[int, ...]
    edges: tuple[Edge, ...]
    batches: tuple[int, ...]
    replayed: tuple[int, ...]
    created_at: datetime


class SettingChange(Closed):
    """A setting that differs between two versions."""

    key: str
    a: Any
    b: Any


class ScoreChange(Closed):
    """Two scores on one eval set."""

    eval_set: str
    metric: str
    a: float | None
    b: float | None
    change: float | None


class FlippedExample(Closed):
    """A held-out document that got worse or better."""

    digest: str
    direction: str
    a: float | str
    b: float | str
    excerpt: str


class FlipRecord(Closed):
    """How many documents of an eval set got worse or better from a to b."""

    eval_set: str
    metric: str
    documents: int
    negative: int
    positive: int
    examples: tuple[FlippedExample, ...]


class DataDelta(Closed):
    """The batches behind one version and not behind the other."""

    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    both: tuple[int, ...]
    documents_only_a: int
    documents_only_b: int


class Comparison(Closed):
    """Two versions side by side."""

    stream: str
    a: int
    b: int
    data: DataDelta
    settings: tuple[SettingChange, ...]
    scores: tuple[ScoreChange, ...]
    flips: tuple[FlipRecord, ...]


class DecisionRecord(Closed):
    """A decision in a list; ``result`` is how it ended, ``nothing`` where that was before a strategy was chosen."""

    id: int
    stream: str
    state: str
    requested: str
    strategy: str | None
    parent: int
    revision: int
    batches: tuple[int, ...]
    reason: str
    outcome: str | None
    result: str | None
    version: int | None
    jobs: tuple[int, ...]
    actor: str
    created_at: datetime
    decided_at: datetime | None
    closed_at: datetime | None


class DecisionDetail(DecisionRecord):
    """A decision with its signals, what was turned down, and the gate's verdict."""

    signals: dict[str, Any]
    measured: dict[str, str]
    settings: dict[str, Any]
    alternatives: tuple[Any, ...]
    verdict: VerdictRecord | None


class LiveRecord(Closed):
    """What is live after a promotion or rollback."""

    stream: str
    live: int
    previous: int | None
    kind: str
    reason: str
    held: tuple[int, ...] = ()


class TokenRecord(Closed):
    """A key to the control plane, without its secret."""

    name: str
    role: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class NewToken(TokenRecord):
    """A fresh key; the secret is shown this once."""

    secret: str


class CollectRecord(Closed):
    """What gc did, or with ``dry_run`` would do: marked now, deleted by a later run unless needed again."""

    dry_run: bool
    marked: int
    marked_bytes: int
    deleted: int
    deleted_bytes: int


class BackupRecord(Closed):
    """Where a backup lies; ``database`` is null for PostgreSQL, which pg_dump copies."""

    directory: str
    database: str | None
    objects: int
    bytes: int


class ExportRecord(Closed):
    """Where an export lies and what it is."""

    stream: str
    version: int
    directory: str
    form: str
    files: int


class DaemonRecord(Closed):
    """The daemon itself."""

    version: str
    pid: int
    home: str
    database: str
    epoch: int
    cpus: int
    gpus: tuple[int, ...]
    faults: dict[str, str]


class RetrainRecord(Closed):
    """The decision that a retrain asked for, or what it would be."""

    dry_run: bool
    decision: DecisionRecord | None
    preview: dict[str, Any] | None


class EvaluateRecord(Closed):
    """An evaluation as asked for: on which sets, those without anything to score, jobs under way, scores so far."""

    stream: str
    version: int
    sets: tuple[str, ...]
    unscored: tuple[str, ...]
    jobs: tuple[int, ...]
    complete: bool
    evaluations: tuple[EvaluationRecord, ...]
