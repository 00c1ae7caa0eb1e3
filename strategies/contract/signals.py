"""What a strategy is told: the live version, the data and what was measured of both."""

from __future__ import annotations

import math

from pydantic import ConfigDict, Field

from strategies.contract.circumstances import Circumstances
from strategies.settings import Closed, Task, TrainingSettings


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
    """As of :class:`Measured`, to the classes of the new sources."""


class Measured(Closed):
    """What the measure job found of one source of rows under the live model, on its train side."""

    name: str
    batch: int
    documents: int
    tokens: int
    rows: int
    """Rows that training draws from: packed rows of ``max_length`` tokens, or documents where rows are not packed."""
    loss: float | None
    """Mean loss a token (texts in windows of 256 tokens), or a document of a class; None: it could not be measured."""
    similarity: float = 0.0
    """Cosine of its token frequencies to the mean of the new sources' (METHODS 4.1)."""
    classes: tuple[ClassFacts, ...] = ()
    """Where documents were told apart: its share of every class that it has."""


class SourceFacts(Measured):
    """A measured source, and what the lineage knows of it."""

    seen_rows: int = 0
    """Rows that versions in the live line already consumed of it."""
    eval_set: str | None = None
    """The eval set made of its own held-out documents, while it is kept apart."""


class Resolved(Closed):
    """What an earlier decision resolved, as far as later ones ask for it: ``Plan.values`` by value, the rest left out.

    A value is None where the decision had none.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    strategy: str | None = None
    start: str | None = None
    mixing: str | None = None
    selection: str | None = None
    schedule: str | None = None
    objective: str | None = None
    consolidation: str | None = None
    tuner: str | None = None
    learning_rate: float | None = None
    constant_learning_rate: float | None = None
    last_learning_rate: float | None = None
    replay: float | None = None
    """Share of old rows in every step."""
    replay_raise: int = 0
    """Notches by which that share was raised for the anchor's sake."""
    anchor_rise: float = 0.0
    """What the anchor's loss had risen by then, where that was above half its tolerance."""
    adapter: str | None = None
    left_over: dict[str, int] = Field(default_factory=dict)
    """Source -> rows that a trunk left to its next stage."""


class Refusal(Resolved):
    """What a refused decision resolved, and why it was refused."""

    only_forgot: bool = False
    """Whether the gate found its candidate better on the new data and worse on the old."""


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
    parent_settings: Resolved = Resolved()
    """What the decision that made the parent resolved."""
    anchor_rise: float | None = None
    """Relative rise of the anchor's loss from version 1 to the live version."""
    anchor_tolerance: float = 0.05
    refused: tuple[Refusal, ...] = ()
    """Earlier refused decisions on the same batches; the next must differ."""
    stage: int = 1
    """Promotions made so far, the first version's among them and rollbacks left out. Draws go by it, so a retrain that
    follows a refused one draws the same again."""
    parameters: tuple[Parameter, ...] = ()
    """The live model's parameters, as the measure job found them."""
    pools: tuple[str, ...] = ()
    """Eval sets of the documents held out of batches whose own set is no longer kept apart."""
    space: str | None = None
    """The domain space that the measure job told documents apart by, where it found one."""
    circumstances: Circumstances = Circumstances()
