"""What the job process is given: files and settings, by kind of job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from strategies.contract.plans import FitTemplate, ProxyTemplate, TrainTemplate
from strategies.settings import Closed, Task, TrainingSettings
from strategies.settings.merging import Merge
from strategies.settings.mixing import ClusterSettings


def _real(symbol: str, info: ValidationInfo) -> str:
    place: Callable[[str], str] | None = (info.context or {}).get("place")
    return symbol if place is None else place(symbol)


Place = Annotated[str, AfterValidator(_real)]
"""A file or folder: a symbol (manifest:HASH, object:HASH, @JOB/ROLE) in a queued job's spec, a path in ``job.json``."""


class ModelFiles(Closed):
    """A model on disk: a Hugging Face folder and, for LoRA versions, a PEFT folder on top."""

    path: Place
    adapter: Place | None = None
    bank: Place | None = None
    """A bank of adapters on top of the model, one a task, with the router that chooses among them."""
    trust_remote_code: bool = False
    labels: tuple[str, ...] = ()
    """Classification: every class the job must know, in head order; the head grows to hold them."""


class SourceFile(Closed):
    """A batch snapshot (Parquet) that rows are drawn from, and the hash it must have."""

    name: str
    batch: int
    path: Place
    sha256: str
    role: Literal["new", "old"]


class EvalFile(Closed):
    """An eval set's snapshot (Parquet with a ``half`` column)."""

    id: int
    name: str
    path: Place
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
    optimizer: Place | None = None
    cursor: Place | None = None
    mixture: Place | None = None
    space: Place | None = None
    reference: ModelFiles | None = None


class ProxyWork(Closed):
    """Tiny runs as a plan's template says."""

    kind: Literal["proxy"] = "proxy"
    template: ProxyTemplate
    sources: tuple[SourceFile, ...]
    forbidden: tuple[EvalFile, ...]
    select: tuple[EvalFile, ...]
    space: Place | None = None


class FitWork(Closed):
    """A regression as a plan's template says; ``runs`` are the folders that its proxies left."""

    kind: Literal["fit"] = "fit"
    template: FitTemplate
    runs: tuple[Place, ...]


class MeasureWork(Closed):
    """Measure each source under the live model, and sample from the model if asked to."""

    kind: Literal["measure"] = "measure"
    sources: tuple[SourceFile, ...]
    documents: int = 200
    """At most this many train-side documents of each source are scored, chosen by digest."""
    tokens: int = 50_000
    """Scoring of a source ends with the window, answer or document that brings it to this many tokens. Old sources but
    ``compared_with`` share as many, so that scoring costs little more the more batches there have been."""
    least: int = 4_096
    """Yet each is scored on so many, for what is new is also told from the greatest loss among all that is known.

    So many tokens of one source gave a mean within 1 to 4 % (standard deviation, seven sources of texts).
    """
    compared_with: int | None = None
    """The batch whose loss that of new ones is compared with, scored on all ``tokens``; None: all old ones together."""
    window: int = 256
    training: TrainingSettings
    sample: SampleWork | None = None
    divide: Literal["column", "clusters"] | None = None
    """Tell documents apart by the column ``domain``, or by clusters: those of ``space``, or found anew."""
    space: Place | None = None
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
    optimizer: Place | None = None
    """Folder of its moments."""


class ProbeWork(Closed):
    """Train compositions for a few steps each, in rounds (:mod:`strategies.contract.probe`)."""

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
    fisher: Place | None = None
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


class QueuedSpec(Closed):
    """What a queued job is told, its files as symbols; the same for every attempt."""

    task: Task
    seed: int
    threads: int
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: ModelFiles
    work: Work


class JobSpec(QueuedSpec):
    """``job.json``: all that the job process knows."""

    format: Literal[1] = 1
    job: int
    attempt: int
    stream: str
    name: str
    resume_from: tuple[str, ...] = ()
    """Directories of earlier attempts, newest first; their checkpoints are read, never written."""
    orphan_after_s: float = 600.0

    @classmethod
    def placed(cls, told: Mapping[str, Any], place: Callable[[str], str]) -> JobSpec:
        """The spec with every :data:`Place` in it, at any depth, as ``place`` has it."""
        return cls.model_validate(told, context={"place": place})
