"""Settings of a stream: one closed tree, every key described. ``rekindle stream schema`` prints it as JSON Schema."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator, model_validator

from strategies.chooser.choice import StrategySettings
from strategies.settings import Closed, Task, TrainingSettings

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
NAME_IN_WORDS = "use small letters, digits, dot, dash and underscore, at most 63, a letter or digit first"
TEN_YEARS_S = 3650 * 86400
"""Longest wait that can be asked for: dates have an end."""
FIRST, LAST = 1000, -1000
"""The ends of priorities."""


def is_name(text: str) -> bool:
    """Whether a stream, a trigger or a token may be called that."""
    return re.fullmatch(NAME_PATTERN, text) is not None


def _checked(name: str) -> str:
    if not is_name(name):
        raise ValueError(NAME_IN_WORDS)
    return name


Name = Annotated[str, AfterValidator(_checked), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]


class SourceSettings(Closed):
    """Where batches come from. Without a source, batches are pushed with ``rekindle ingest`` or over HTTP."""

    uri: str | None = Field(
        None, description="file, folder, glob or fsspec URL with a glob; hf://datasets/OWNER/NAME@REVISION"
    )
    poll_seconds: float = Field(5.0, ge=0.2, description="seconds between two looks at the source")
    settle_seconds: float = Field(
        2.0, ge=0, description="seconds without a change after which a file is taken as complete"
    )
    text_fields: dict[str, str] = Field(
        default_factory=dict,
        description="column of each field of the task, where their names differ, e.g. {text: body}",
    )
    domain_field: str | None = Field(
        "domain", description="column of the class that data mixing may tell documents apart by; need not be there"
    )
    id_field: str | None = Field("id", description="column of an id of your own for each document; need not be there")


class SplitSettings(Closed):
    """How the documents are chosen that are held out of training, as the batch's eval set."""

    heldout: float = Field(0.1, gt=0, lt=0.5, description="share of each batch that is held out")
    group_by: str | None = Field(
        None, description="column; documents with the same value stay on one side. Default: near-duplicates do"
    )


class IngestLimits(Closed):
    """Limits on what is read, which keep memory bounded."""

    max_file_bytes: int = Field(8 << 30, ge=1, description="size of a file as it comes, compressed or not")
    max_decompressed_bytes: int = Field(32 << 30, ge=1, description="size of a file after decompression")
    max_row_bytes: int = Field(16 << 20, ge=1, description="size of a row; larger ones are quarantined")
    max_rows: int = Field(10_000_000, ge=1, description="rows in one batch")
    max_nesting: int = Field(64, ge=1, description="levels of nesting in a JSON row; deeper ones are quarantined")


class CronTrigger(Closed):
    """At the times of a cron expression in the stream's time zone, if new data is pending."""

    kind: Literal["cron"] = Field("cron", description="at the times of a cron expression")
    name: Name = Field("cron", description="name of the trigger")
    cron: str = Field(description="minute, hour, day, month and weekday, e.g. 0 3 * * *")
    missed: Literal["run-once", "skip"] = Field(
        "run-once", description="firings that were missed while the daemon was down: run once for all, or skip them"
    )


class IntervalTrigger(Closed):
    """After every interval since the trigger was made, if new data is pending."""

    kind: Literal["interval"] = Field("interval", description="after every so many seconds")
    name: Name = Field("interval", description="name of the trigger")
    every_seconds: float = Field(ge=1, le=TEN_YEARS_S, description="seconds between firings")
    missed: Literal["run-once", "skip"] = Field(
        "run-once", description="firings that were missed while the daemon was down: run once for all, or skip them"
    )


class AmountTrigger(Closed):
    """As soon as enough new data is pending."""

    kind: Literal["amount"] = Field("amount", description="as soon as enough new data is pending")
    name: Name = Field("amount", description="name of the trigger")
    documents: int = Field(ge=1, description="how many pending training documents are enough")


TriggerSettings = Annotated[CronTrigger | IntervalTrigger | AmountTrigger, Field(discriminator="kind")]


class GateSettings(Closed):
    """When a candidate may go live."""

    mode: Literal["enforce", "record"] = Field(
        "enforce",
        description="enforce: only what passes goes live; record: all candidates go live, marked with the verdict",
    )
    repair: bool = Field(
        True, description="move a candidate that only forgot back towards the live version, and judge the result"
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="confidence of the lower and of the upper bound on each change, each one-sided"
    )
    resamples: int = Field(
        2000,
        ge=100,
        le=100_000,
        description="resamples of the documents that those bounds come from (paired bootstrap)",
    )
    new_data_margin: float = Field(
        0.01,
        ge=0,
        description="new data, where the candidate has to be better: how much worse it may be by the upper bound, as a"
        " share of the loss, or in accuracy (0.01 is one point)",
    )
    tolerance_loss: float = Field(
        0.05, ge=0, description="older eval sets: relative rise of the loss that is allowed against the live version"
    )
    tolerance_accuracy: float = Field(
        0.02, ge=0, description="older eval sets: fall of the accuracy that is allowed against the live version"
    )
    best_tolerance_loss: float = Field(
        0.10, ge=0, description="as tolerance_loss, against the best version that was ever live"
    )
    best_tolerance_accuracy: float = Field(
        0.04, ge=0, description="as tolerance_accuracy, against the best version that was ever live"
    )
    flip_rise: float = Field(0.10, ge=0, description="a document whose loss rises by a larger share is a negative flip")
    max_flips_loss: float = Field(
        0.10, ge=0, le=1, description="share of an older set's documents that may be negative flips"
    )
    max_flips_accuracy: float = Field(
        0.05,
        ge=0,
        le=1,
        description="classification: share of an older set's documents that may turn from right to wrong",
    )

    def tolerance(self, metric: str, against: Literal["live", "best"] = "live") -> float:
        """How much worse an older set may be: the relative rise of a loss, or the fall of an accuracy."""
        if metric == "accuracy":
            return self.tolerance_accuracy if against == "live" else self.best_tolerance_accuracy
        return self.tolerance_loss if against == "live" else self.best_tolerance_loss


class BudgetSettings(Closed):
    """Limits on what one job may cost."""

    max_hours: float = Field(24.0, gt=0, le=TEN_YEARS_S / 3600, description="hours that one attempt of a job may run")
    max_attempts: int = Field(3, ge=1, le=10, description="times that a job is attempted before it counts as failed")


class ResourceSettings(Closed):
    """What one job of this stream takes."""

    cpus: int = Field(1, ge=1, le=4096, description="cores, and threads, of one job")
    gpus: int = Field(
        0, ge=0, le=1024, description="GPUs that one job is given, of which it uses one; 0: it runs on the CPU"
    )
    priority: int = Field(0, ge=LAST, le=FIRST, description="jobs of streams with a higher priority start first")


class PublishSettings(Closed):
    """Where the live model is published."""

    enabled: bool = Field(True, description="false: the live model stays in the store and has no folder")
    directory: str | None = Field(None, description="folder that has the link `live`; default: HOME/published/STREAM")
    keep_hours: float = Field(24.0, ge=0, description="hours that the previous model's folder stays")


class RetentionSettings(Closed):
    """What is kept."""

    evaluated_batches: int = Field(
        8, ge=1, description="newest batches that keep eval sets of their own; those of older ones are pooled"
    )
    keep_rejected_days: float = Field(7.0, ge=0, description="days that the weights of rejected candidates are kept")


class StreamSettings(Closed):
    """A stream: where its data comes from, what it trains, when, how, and what may go live."""

    format: Literal[1] = Field(1, description="version of this format")
    name: Name = Field(description="name of the stream")
    task: Task = Field("causal-lm", description="what the model learns; fixed for the life of the stream")
    model: str = Field(description="folder or hub id of the base model")
    revision: str | None = Field(None, description="hub revision of the base model")
    trust_remote_code: bool = Field(False, description="run code that comes with the model; only if you trust it")
    source: SourceSettings = Field(default_factory=SourceSettings, description="where batches come from")
    anchor: str | None = Field(
        None,
        description="file or glob of data that stands for what the base model knows; texts sampled from the base stand"
        " in for a causal-lm stream without one",
    )
    evaluations: dict[str, str] = Field(
        default_factory=dict, description="fixed eval sets, by name: file or glob of each"
    )
    split: SplitSettings = Field(default_factory=SplitSettings, description="what is held out of each batch")
    limits: IngestLimits = Field(default_factory=IngestLimits, description="limits on what is read")
    triggers: tuple[TriggerSettings, ...] = Field(
        (), description="when to retrain; without any, `rekindle retrain` alone does"
    )
    timezone: str = Field("UTC", description="time zone of cron triggers, by its IANA name")
    strategy: StrategySettings = Field(default_factory=StrategySettings, description="how to retrain")
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="how a model is trained")
    gate: GateSettings = Field(default_factory=GateSettings, description="when a candidate may go live")
    budget: BudgetSettings = Field(default_factory=BudgetSettings, description="limits of one job")
    resources: ResourceSettings = Field(default_factory=ResourceSettings, description="what one job takes")
    publish: PublishSettings = Field(default_factory=PublishSettings, description="where the live model goes")
    retention: RetentionSettings = Field(default_factory=RetentionSettings, description="what is kept")

    @field_validator("strategy", mode="before")
    @classmethod
    def _strategy_by_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("source", mode="before")
    @classmethod
    def _source_by_uri(cls, value: object) -> object:
        return {"uri": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _trigger_names_differ(self) -> StreamSettings:
        names = [trigger.name for trigger in self.triggers]
        if len(set(names)) != len(names):
            raise ValueError("two triggers have the same name; give each a name of its own")
        return self
