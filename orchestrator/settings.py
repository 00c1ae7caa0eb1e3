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
        None, description="folder, glob or fsspec URL with a glob; hf://datasets/OWNER/NAME@REVISION"
    )
    poll_seconds: float = Field(5.0, ge=0.2, description="how often the source is looked at")
    settle_seconds: float = Field(
        2.0, ge=0, description="a file that changed within this time is still growing and waits"
    )
    text_fields: dict[str, str] = Field(
        default_factory=dict, description="task field -> column, where the columns have other names, e.g. text: body"
    )
    domain_field: str | None = Field(
        "domain", description="column of the class that data mixing tells documents apart by; not required to be there"
    )
    id_field: str | None = Field("id", description="column of the external id; not required to be there")


class SplitSettings(Closed):
    """How held-out rows are chosen."""

    heldout: float = Field(0.1, gt=0, lt=0.5, description="share of each batch that becomes its eval set")
    group_by: str | None = Field(
        None, description="column whose equal values stay on one side; default: near-duplicates"
    )


class IngestLimits(Closed):
    """Caps that keep memory bounded whatever arrives."""

    max_file_bytes: int = Field(8 << 30, ge=1, description="compressed or plain size of one file")
    max_decompressed_bytes: int = Field(32 << 30, ge=1, description="bytes after decompression")
    max_row_bytes: int = Field(16 << 20, ge=1, description="one row; longer rows are quarantined")
    max_rows: int = Field(10_000_000, ge=1, description="rows in one batch")
    max_nesting: int = Field(64, ge=1, description="JSON nesting depth of a row")


class CronTrigger(Closed):
    """Five-field cron expression in the stream's time zone."""

    kind: Literal["cron"] = "cron"
    name: Name = Field("cron", description="name of the trigger")
    cron: str = Field(description="minute hour day month weekday, e.g. 0 3 * * *")
    missed: Literal["run-once", "skip"] = Field(
        "run-once", description="what to do with firings that nobody was up for"
    )


class IntervalTrigger(Closed):
    """Every so often, counted from the trigger's creation."""

    kind: Literal["interval"] = "interval"
    name: Name = Field("interval", description="name of the trigger")
    every_seconds: float = Field(ge=1, le=TEN_YEARS_S, description="seconds between firings")
    missed: Literal["run-once", "skip"] = Field(
        "run-once", description="what to do with firings that nobody was up for"
    )


class AmountTrigger(Closed):
    """As soon as enough new data is pending."""

    kind: Literal["amount"] = "amount"
    name: Name = Field("amount", description="name of the trigger")
    documents: int = Field(ge=1, description="pending training documents that suffice")


TriggerSettings = Annotated[CronTrigger | IntervalTrigger | AmountTrigger, Field(discriminator="kind")]


class GateSettings(Closed):
    """When a candidate may go live."""

    mode: Literal["enforce", "record"] = Field(
        "enforce", description="record: store the verdict, go live anyway, marked"
    )
    repair: bool = Field(
        True, description="take a candidate that only forgot some steps back towards the live version, and judge that"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the one-sided bounds")
    resamples: int = Field(2000, ge=100, le=100_000, description="paired bootstrap resamples, by document")
    new_data_margin: float = Field(0.01, ge=0, description="upper bound of the change on new data, relative for losses")
    tolerance_loss: float = Field(
        0.05, ge=0, description="allowed relative rise of loss on older sets against the live version"
    )
    tolerance_accuracy: float = Field(0.02, ge=0, description="allowed fall of accuracy against the live version")
    best_tolerance_loss: float = Field(0.10, ge=0, description="the same against the best version that was ever live")
    best_tolerance_accuracy: float = Field(
        0.04, ge=0, description="the same against the best version that was ever live"
    )
    flip_rise: float = Field(0.10, ge=0, description="a document whose loss rises by more is a negative flip")
    max_flips_loss: float = Field(0.10, ge=0, le=1, description="share of negative flips allowed, for loss")
    max_flips_accuracy: float = Field(0.05, ge=0, le=1, description="share of negative flips allowed, for classes")

    def tolerance(self, metric: str, against: Literal["live", "best"] = "live") -> float:
        """How much worse an older set may be: the relative rise of a loss, or the fall of an accuracy."""
        if metric == "accuracy":
            return self.tolerance_accuracy if against == "live" else self.best_tolerance_accuracy
        return self.tolerance_loss if against == "live" else self.best_tolerance_loss


class BudgetSettings(Closed):
    """Limits on what one retrain may cost."""

    max_hours: float = Field(24.0, gt=0, le=TEN_YEARS_S / 3600, description="wall-clock limit of one job")
    max_attempts: int = Field(3, ge=1, le=10, description="attempts of one job")


class ResourceSettings(Closed):
    """What one job of this stream takes."""

    cpus: int = Field(1, ge=1, le=4096, description="cores (and threads) of one job")
    gpus: int = Field(0, ge=0, le=1024, description="GPUs of one job; 0: CPU")
    priority: int = Field(0, ge=LAST, le=FIRST, description="higher runs first")


class PublishSettings(Closed):
    """Where the live model is published."""

    enabled: bool = Field(True, description="false: the live model stays in the store, as a backtest's does")
    directory: str | None = Field(None, description="folder of the live link; default: HOME/published/STREAM")
    keep_hours: float = Field(24.0, ge=0, description="how long the previous folder stays")


class RetentionSettings(Closed):
    """What is kept."""

    evaluated_batches: int = Field(
        8, ge=1, description="newest batches whose eval sets stay apart; older ones are pooled"
    )
    keep_rejected_days: float = Field(7.0, ge=0, description="how long the bytes of rejected candidates are kept")


class StreamSettings(Closed):
    """A stream: where its data comes from, what it trains, when, how, and what may go live."""

    format: Literal[1] = Field(1, description="format of these settings")
    name: Name = Field(description="name of the stream")
    task: Task = Field("causal-lm", description="what the model learns; fixed for the life of the stream")
    model: str = Field(description="folder or hub id of the base model")
    revision: str | None = Field(None, description="hub revision of the base model")
    trust_remote_code: bool = Field(False, description="run code from the model's repository; only if you trust it")
    source: SourceSettings = Field(default_factory=SourceSettings, description="where batches come from")
    anchor: str | None = Field(None, description="file or glob that stands for what the base already knows")
    evaluations: dict[str, str] = Field(default_factory=dict, description="fixed eval sets: name -> file or glob")
    split: SplitSettings = Field(default_factory=SplitSettings, description="what is held out of each batch")
    limits: IngestLimits = Field(default_factory=IngestLimits, description="caps on what is read")
    triggers: tuple[TriggerSettings, ...] = Field((), description="when to retrain")
    timezone: str = Field("UTC", description="IANA zone of cron triggers")
    strategy: StrategySettings = Field(default_factory=StrategySettings, description="how to retrain")
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="how a model is trained")
    gate: GateSettings = Field(default_factory=GateSettings, description="when a candidate may go live")
    budget: BudgetSettings = Field(default_factory=BudgetSettings, description="limits of one retrain")
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
