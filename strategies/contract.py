"""The contract between the orchestrator, the strategies and the job process: records only, no torch, no SQL.

Three directions: a strategy turns :class:`Signals` into a :class:`Plan`; the orchestrator resolves a plan's references
into a :class:`JobSpec` (``job.json``); the job process answers with a :class:`JobResult` (``result.json``). All of them
are closed JSON with ``format: 1``; a newer format is refused by name.

The job directory
-----------------
``job.json``        written by the orchestrator before the start; read once
``heartbeat.json``  boot id, pid, start time, step, phase; replaced every two seconds
``progress.json``   :class:`Progress`; replaced at most twice a second
``adopted.json``    touched by the daemon while it lives; older than ten minutes: the job checkpoints and ends itself
``cancel``          exists: checkpoint and end with exit code 75
``checkpoints/``    ``step-N/`` folders, each complete or absent
``out/``            what the job made, one folder or file an artifact role
``result.json``     written last, atomically; its presence with exit code 0 is success
``job.log``         stdout and stderr
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from strategies.agent.settings import ProxySettings
from strategies.circumstances import Circumstances
from strategies.merging.settings import Merge
from strategies.mixing.domains import ClusterSettings
from strategies.mixing.regmix_records import FitSettings
from strategies.parts import (
    Consolidation,
    KeepConsolidation,
    Mixing,
    Objective,
    Reference,
    Schedule,
    Selection,
    WeightedMixing,
)
from strategies.settings import Closed, Task, TrainingSettings

FORMAT = 1
EXIT_CANCELLED = 75
"""The job stopped on request, or because nobody adopted it, after writing a checkpoint."""
EXIT_REFUSED = 65
"""The job refused its input (bad data or settings): trying again cannot help."""


# --- plans and what they are made from ----------------------------------------------------------------------------


class TrainTemplate(Closed):
    """One train job of a plan; references are edges of the plan's graph."""

    kind: Literal["train"] = "train"
    init: Reference
    optimizer: Reference | None = None
    mixing: Mixing
    selection: Selection
    schedule: Schedule
    objective: Objective
    reference: Reference | None = None
    """The frozen model that the objective compares with."""
    consolidation: Consolidation = KeepConsolidation()
    steps: int = Field(ge=1)
    training: TrainingSettings
    state: tuple[str, ...] = ()
    """Which ``state/*`` artifacts the job leaves for later stages, beside its answer."""


class ProxyTemplate(Closed):
    """Tiny runs on constant mixtures, one after the other, of a proxy that shares only the tokenizer of ``init``."""

    kind: Literal["proxy"] = "proxy"
    init: Reference
    mixing: WeightedMixing
    """The domains and their eval sets; its weights are not used."""
    mixtures: tuple[dict[str, float], ...] = Field(min_length=1)
    targets: tuple[str, ...]
    """Domains that the training is for."""
    proxy: ProxySettings
    training: TrainingSettings
    state: tuple[str, ...] = ("evidence/runs",)


class FitTemplate(Closed):
    """RegMix's regression over the tiny runs of earlier jobs, and the mixture that it chooses."""

    kind: Literal["regmix"] = "regmix"
    init: Reference
    runs: tuple[Reference, ...] = Field(min_length=1)
    fit: FitSettings
    training: TrainingSettings
    state: tuple[str, ...] = ("state/mixture", "evidence/regmix")


class MergeTemplate(Closed):
    """The last step of a stage: what its train jobs made becomes one model (METHODS 7)."""

    kind: Literal["merge"] = "merge"
    init: Reference
    """The model that changes are counted from, or gone back towards: a version's, or an earlier job's."""
    members: dict[str, Reference] = Field(min_length=1)
    """Role -> the answer of a train job, or ``init`` itself."""
    method: Merge
    into: Literal["model", "adapter"] = "model"
    rows: dict[str, str] = Field(default_factory=dict)
    """Role -> the source that its Fisher information is estimated from; fisher only."""
    sets: tuple[str, ...] = ()
    """Eval sets that a greedy soup chooses by."""
    training: TrainingSettings
    state: tuple[str, ...] = ()


Template = Annotated[TrainTemplate | ProxyTemplate | FitTemplate | MergeTemplate, Field(discriminator="kind")]


class Explained(Closed):
    """A resolved value and where it comes from."""

    value: Any
    origin: str


class Plan(Closed):
    """The executable form of a decision; the version is the ``answer/*`` of job ``result`` and all jobs' state."""

    format: Literal[1] = 1
    strategy: str
    jobs: dict[str, Template]
    result: str
    reason: str
    values: dict[str, Explained] = Field(default_factory=dict)
    parents: dict[str, float] = Field(default_factory=dict)
    """Roles of further parents; the decision's parent is always one, role ``init`` when training starts from it."""


class Parameter(Closed):
    """One parameter tensor of a model, in module order; a tied one stands once, under the first of its ``names``."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    module: str
    """Class of the module that owns it: Linear, Conv1D (whose matrices are transposed), Embedding, LlamaRMSNorm …"""

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


class ClassFacts(Closed):
    """What one source holds of one class of documents."""

    name: str
    documents: int
    tokens: int
    rows: int
    similarity: float = 0.0
    """As of :class:`SourceFacts`, to the classes of the new sources."""


class SourceFacts(Closed):
    """What was measured of one source of rows under the live model, on its train side."""

    name: str
    batch: int
    documents: int
    tokens: int
    rows: int
    """Rows that training draws from: packed rows of ``max_length`` tokens, or documents where rows are not packed."""
    loss: float | None
    """Mean loss a token of documents in 256-token windows; None where it could not be measured."""
    seen_rows: int = 0
    """Rows that versions in the live line already consumed of it."""
    similarity: float = 0.0
    """Cosine of its token frequencies to the mean of the new sources' (METHODS 4.1)."""
    eval_set: str | None = None
    """The eval set made of its own held-out documents, while it is kept apart."""
    classes: tuple[ClassFacts, ...] = ()
    """Where documents were told apart: its share of every class that it has."""


class Signals(Closed):
    """Everything a strategy may look at. Sources: ``new`` are the decision's batches, ``old`` earlier trained ones."""

    task: Task
    training: TrainingSettings
    new: tuple[SourceFacts, ...]
    old: tuple[SourceFacts, ...]
    anchor: SourceFacts | None
    labels: tuple[str, ...] = ()
    parent: str
    parent_answer: tuple[str, ...] = ("answer/model",)
    """Roles of the live version's ``answer/*`` artifacts: a model, and perhaps an adapter or a bank on top."""
    parent_labels: tuple[str, ...] = ()
    """Classes that the live version knows, in head order; ``labels`` goes on from them."""
    taught_labels: tuple[str, ...] = ()
    """Classes that documents of the sources have: all that a model which starts from the base can learn."""
    parent_state: tuple[str, ...] = ()
    """Roles of the live version's ``state/*`` artifacts, such as ``state/trunk``."""
    parent_settings: dict[str, Any] = Field(default_factory=dict)
    """What the decision that made the parent resolved (``Plan.values`` by value): last peak rate, replay notch …"""
    anchor_rise: float | None = None
    """Relative rise of the anchor's loss from version 1 to the live version."""
    anchor_tolerance: float = 0.05
    refused: tuple[dict[str, Any], ...] = ()
    """Resolved settings of earlier refused decisions on the same batches; the next must differ."""
    stage: int = 1
    parameters: tuple[Parameter, ...] = ()
    """The live model's parameters, as the measure job found them."""
    pools: tuple[str, ...] = ()
    """Eval sets of the documents held out of batches whose own set is no longer kept apart."""
    space: str | None = None
    """The domain space that the measure job told documents apart by, where it found one."""
    circumstances: Circumstances = Circumstances()


# --- job.json ----------------------------------------------------------------------------------------------------


class ModelFiles(Closed):
    """A model on disk: a Hugging Face folder and, for LoRA versions, a PEFT folder on top."""

    path: str
    adapter: str | None = None
    bank: str | None = None
    """A bank of adapters on top of the model, one a task, with the router that chooses among them."""
    trust_remote_code: bool = False
    labels: tuple[str, ...] = ()
    """Classification: every class the job must know, in head order; the head grows to hold them."""


class SourceFile(Closed):
    """A batch snapshot (Parquet) that rows are drawn from, and the hash it must have."""

    name: str
    batch: int
    path: str
    sha256: str
    role: Literal["new", "old"]


class EvalFile(Closed):
    """An eval set's snapshot (Parquet with a ``half`` column)."""

    id: int
    name: str
    path: str
    sha256: str
    labels: tuple[str, ...] = ()


class TrainWork(Closed):
    """Train as a plan's template says, its references resolved to files."""

    kind: Literal["train"] = "train"
    template: TrainTemplate
    sources: tuple[SourceFile, ...]
    forbidden: tuple[EvalFile, ...]
    """Eval sets: the job refuses to start if one of their digests is among its rows."""
    select: tuple[EvalFile, ...] = ()
    """Eval sets whose ``select`` halves are measured while the model trains."""
    optimizer: str | None = None
    cursor: str | None = None
    mixture: str | None = None
    space: str | None = None
    reference: ModelFiles | None = None


class ProxyWork(Closed):
    """Tiny runs as a plan's template says."""

    kind: Literal["proxy"] = "proxy"
    template: ProxyTemplate
    sources: tuple[SourceFile, ...]
    forbidden: tuple[EvalFile, ...]
    select: tuple[EvalFile, ...]
    space: str | None = None


class FitWork(Closed):
    """A regression as a plan's template says; ``runs`` are the folders that its proxies left."""

    kind: Literal["regmix"] = "regmix"
    template: FitTemplate
    runs: tuple[str, ...]


class MeasureWork(Closed):
    """Measure each source under the live model, and sample from the model if asked to."""

    kind: Literal["measure"] = "measure"
    sources: tuple[SourceFile, ...]
    documents: int = 200
    """At most this many train-side documents of each source are scored, chosen by digest."""
    tokens: int = 50_000
    """Scoring of a source ends with the window, answer or document that brings it to this many tokens."""
    window: int = 256
    training: TrainingSettings
    sample: SampleWork | None = None
    divide: Literal["column", "clusters"] | None = None
    """Tell documents apart by the column ``domain``, or by clusters: those of ``space``, or found anew."""
    space: str | None = None
    clusters: ClusterSettings = ClusterSettings()


class SampleWork(Closed):
    """Documents sampled from the model itself, to stand in for a missing anchor (written to out/samples.jsonl)."""

    documents: int = 200
    tokens: int = 256
    seed: int = 1234


class EvaluateWork(Closed):
    """Score one model on eval sets."""

    kind: Literal["evaluate"] = "evaluate"
    sets: tuple[EvalFile, ...]
    training: TrainingSettings
    known_labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Classification: name of a compared version -> its classes; argmax is also taken within each."""


class TrialStart(Closed):
    """What a candidate's short runs start from: what its retrain would, be it the live answer or the live trunk."""

    candidate: str
    model: ModelFiles
    optimizer: str | None = None
    """Folder of its moments."""


class ProbeWork(Closed):
    """Train compositions for a few steps each, in rounds, and say which does best (see :mod:`strategies.probe`)."""

    kind: Literal["probe"] = "probe"
    trials: dict[str, tuple[TrainTemplate, ...]]
    """Label -> its train job in each round; scores are changes from the job's model."""
    starts: tuple[TrialStart, ...]
    """One of each candidate."""
    sizes: tuple[int, ...]
    """How many train in each round; the first is all of them."""
    slices: dict[str, int]
    """Source -> how many of its documents, by digest, the trials draw from."""
    incumbent: str
    """What stays until the last round, whatever it scores."""
    sources: tuple[SourceFile, ...]
    forbidden: tuple[EvalFile, ...]
    sets: tuple[EvalFile, ...]
    """Only rows of half ``select`` are read."""
    new: tuple[str, ...]
    """Names of the eval sets of the new batches."""
    known: tuple[str, ...] = ()
    """Classes that the model knows: older sets are scored among them, as the gate does."""
    documents: int = 64
    """At most this many rows of a set are scored."""
    training: TrainingSettings


class MergeParent(Closed):
    """One model of a merge. ``role`` names it in facts, seeds and lineage; unique within a job."""

    role: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: ModelFiles
    weight: float = Field(1.0, allow_inf_nan=False)
    fisher: str | None = None
    """Folder of the artifact ``state/importance/<estimator>``; fisher merges only."""
    rows: SourceFile | None = None
    """Rows it was trained on: its Fisher information is estimated from them where ``fisher`` is not given."""


class MergeSet(Closed):
    """An eval set that a merge looks at; only its rows of half ``select`` are read."""

    file: EvalFile
    role: Literal["new", "old"] = "new"
    tolerance: float = Field(0.0, ge=0)
    """Repair, role ``old``: the largest rise over the parent, relative for a loss, absolute for an accuracy's fall."""


class MergeWork(Closed):
    """Merge models (METHODS 7). The job's ``model`` is the base that changes are counted from.

    The result has its dtype and tokenizer. For ``interpolate``, ``half-reset``, ``lines`` and ``repair`` the base is
    the version to go back towards, and the one parent is the candidate.
    """

    kind: Literal["merge"] = "merge"
    base: str = "base"
    """What facts and lineage call the job's ``model``."""
    method: Merge
    parents: tuple[MergeParent, ...] = Field(min_length=1)
    into: Literal["model", "adapter"] = "model"
    """``adapter``: the parents are LoRA adapters on the base's folder and so is the result, in the first one's rank."""
    sets: tuple[MergeSet, ...] = ()
    """greedy-soup and repair choose by these."""
    training: TrainingSettings = TrainingSettings()
    """How long rows are and how many are scored together."""


MeasureWork.model_rebuild()
Work = Annotated[
    TrainWork | ProxyWork | FitWork | MeasureWork | EvaluateWork | MergeWork | ProbeWork, Field(discriminator="kind")
]


class JobSpec(Closed):
    """``job.json``: all that the job process knows."""

    format: Literal[1] = 1
    job: int
    attempt: int
    stream: str
    name: str
    task: Task
    seed: int
    threads: int
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: ModelFiles
    work: Work
    resume_from: tuple[str, ...] = ()
    """Directories of earlier attempts, newest first; their checkpoints are read, never written."""
    orphan_after_s: float = 600.0


# --- what the job writes -----------------------------------------------------------------------------------------


class Progress(Closed):
    """``progress.json``."""

    phase: str
    step: int = 0
    steps: int = 0
    tokens: int = 0
    tokens_per_s: float | None = None
    loss: float | None = None
    lr: float | None = None
    eta_s: float | None = None


class Consumed(Closed):
    """Rows of one snapshot that training took: a bitmap file (bit n is row n, least significant first) and counts."""

    batch: int
    sha256: str
    role: Literal["trained", "replayed"]
    bitmap: str
    documents: int
    samples: int


class Score(Closed):
    """One eval set's score; ``results`` is a Parquet file of per-example results.

    Columns: ``digest``, ``half``, ``tokens`` (answer or text tokens; 1 for classes), ``bytes``, ``loss`` (summed nats),
    and for classification ``label``, ``predicted``, ``correct`` and, for each known_labels entry,
    ``correct_in:<version>``; there ``loss`` is null where the model does not know the label.
    Metric ``loss`` is nats a token over all tokens (lower is better); ``accuracy`` is a share (higher is better).
    """

    eval_set: int
    name: str
    sha256: str
    metric: Literal["loss", "accuracy"]
    value: float
    value_select: float | None
    value_judge: float | None
    examples: int
    tokens: int
    bytes: int
    results: str
    details: dict[str, Any] = Field(default_factory=dict)


class Measured(Closed):
    """One source as measured (see :class:`SourceFacts`)."""

    name: str
    batch: int
    documents: int
    tokens: int
    rows: int
    loss: float | None
    similarity: float = 0.0
    classes: tuple[ClassFacts, ...] = ()


class JobResult(Closed):
    """``result.json``. Paths are relative to the job directory."""

    format: Literal[1] = 1
    kind: Literal["train", "fit", "measure", "evaluate", "merge", "probe"]
    artifacts: dict[str, str] = Field(default_factory=dict)
    """Role (``answer/model``, ``answer/adapter``, ``state/trunk``, ``state/optimizer``, …) -> folder under out/."""
    consumed: tuple[Consumed, ...] = ()
    scores: tuple[Score, ...] = ()
    measured: tuple[Measured, ...] = ()
    labels: tuple[str, ...] = ()
    samples: str | None = None
    parameters: tuple[Parameter, ...] = ()
    facts: dict[str, Any] = Field(default_factory=dict)
    """Seeds, library versions, thread count, precision, hashes of the data, losses by step, packing probe …"""
