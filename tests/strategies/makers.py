"""Signals to plan from, with defaults that each test changes."""

from typing import Any

from strategies.chooser import choice
from strategies.chooser.choice import StrategySettings
from strategies.contract import MergeTemplate, Parameter, Plan, Signals, SourceFacts, TrainTemplate
from strategies.parts import (
    AdapterSelection,
    CosineSchedule,
    HalfSelection,
    InfiniteSchedule,
    ReplayMixing,
    WeightedMixing,
)
from strategies.settings import Json, TrainingSettings
from strategies.settings.consolidation import EmaConsolidation

MATRICES = {
    "self_attn": dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (16, 16)),
    "mlp": {"gate_proj": (24, 16), "up_proj": (24, 16), "down_proj": (16, 24)},
}
TRUNK = ("state/trunk", "state/optimizer", "state/mixing")


def parameters(layers: int = 2) -> tuple[Parameter, ...]:
    """The table of a small model of the Llama kind."""
    inside = [
        Parameter(names=(f"model.layers.{layer}.{part}.{name}.weight",), shape=shape, module="Linear")
        for layer in range(layers)
        for part, matrices in MATRICES.items()
        for name, shape in matrices.items()
    ]
    norms = [
        Parameter(names=(f"model.layers.{layer}.{name}.weight",), shape=(16,), module="LlamaRMSNorm")
        for layer in range(layers)
        for name in ("input_layernorm", "post_attention_layernorm")
    ]
    embeddings = Parameter(names=("model.embed_tokens.weight",), shape=(32, 16), module="Embedding")
    last = Parameter(names=("model.norm.weight",), shape=(16,), module="LlamaRMSNorm")
    head = Parameter(names=("lm_head.weight",), shape=(32, 16), module="Linear")
    return (embeddings, *inside, *norms, last, head)


def source(
    name: str, rows: int = 1600, loss: float | None = 3.0, seen_rows: int = 0, tokens: int = 1000
) -> SourceFacts:
    return SourceFacts(
        name=name, batch=1, documents=rows, tokens=tokens, rows=rows, loss=loss, seen_rows=seen_rows
    )  # fmt: skip


def signals(training: Json | None = None, **changes: Any) -> Signals:
    """One new batch, two old ones and an anchor, all of equal loss."""
    plain: Json = {
        "task": "causal-lm",
        "new": (source("batch-3"),),
        "old": (source("batch-1", 800, seen_rows=700), source("batch-2", 400, seen_rows=400)),
        "anchor": source("anchor", 500, seen_rows=500),
        "parent": "news/2",
        "parameters": parameters(),
    }
    return Signals(training=TrainingSettings(**(training or {})), **{**plain, **changes})


def plan(given: Signals | None = None, name: str = "rewarm-replay", **settings: Any) -> Plan:
    return choice.plan(given or signals(), StrategySettings.model_validate({"name": name, **settings}))


def values(made: Plan) -> Json:
    """What the orchestrator remembers of a plan."""
    return {name: one.value for name, one in made.values.items()}


def train_job(made: Plan, name: str = "train") -> TrainTemplate:
    """A job of a plan, which trains."""
    job = made.jobs[name]
    assert isinstance(job, TrainTemplate)
    return job


def train_jobs(made: Plan) -> list[TrainTemplate]:
    """All jobs of a plan that does nothing but train."""
    return [train_job(made, name) for name in made.jobs]


def merge_job(made: Plan) -> MergeTemplate:
    """The merge that a plan ends with."""
    job = made.jobs[made.result]
    assert isinstance(job, MergeTemplate)
    return job


def replay_mixing(job: TrainTemplate) -> ReplayMixing:
    """The mixing of a job that draws new rows and replays old ones."""
    assert isinstance(job.mixing, ReplayMixing)
    return job.mixing


def weighted_mixing(job: TrainTemplate) -> WeightedMixing:
    """The mixing of a job that draws every domain by its weight."""
    assert isinstance(job.mixing, WeightedMixing)
    return job.mixing


def cosine_schedule(job: TrainTemplate) -> CosineSchedule:
    """The schedule of a job that ends with its cosine."""
    assert isinstance(job.schedule, CosineSchedule)
    return job.schedule


def infinite_schedule(job: TrainTemplate) -> InfiniteSchedule:
    """The schedule of a trunk, or of its release."""
    assert isinstance(job.schedule, InfiniteSchedule)
    return job.schedule


def half_selection(job: TrainTemplate) -> HalfSelection:
    """The selection of a job that half fine-tunes."""
    assert isinstance(job.selection, HalfSelection)
    return job.selection


def adapter_selection(job: TrainTemplate) -> AdapterSelection:
    """The selection of a job that trains an adapter of its own."""
    assert isinstance(job.selection, AdapterSelection)
    return job.selection


def ema_consolidation(job: TrainTemplate) -> EmaConsolidation:
    """The consolidation of a job that averages its weights."""
    assert isinstance(job.consolidation, EmaConsolidation)
    return job.consolidation
