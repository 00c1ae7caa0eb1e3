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

from storage.states import JobKind
from strategies.contract.plans import (
    Explained,
    FitTemplate,
    MergeTemplate,
    Plan,
    ProxyTemplate,
    Template,
    TrainTemplate,
)
from strategies.contract.results import (
    EXIT_CANCELLED,
    EXIT_REFUSED,
    FORMAT,
    Consumed,
    JobResult,
    Progress,
    Score,
)
from strategies.contract.signals import ClassFacts, Measured, Parameter, Refusal, Resolved, Signals, SourceFacts
from strategies.contract.work import (
    EvalFile,
    EvaluateWork,
    FitWork,
    JobSpec,
    MeasureWork,
    MergeParent,
    MergeSet,
    MergeWork,
    ModelFiles,
    ProbeWork,
    ProxyWork,
    QueuedSpec,
    SampleWork,
    SourceFile,
    TrainWork,
    TrialStart,
    Work,
)

__all__ = [
    "EXIT_CANCELLED",
    "EXIT_REFUSED",
    "FORMAT",
    "ClassFacts",
    "Consumed",
    "EvalFile",
    "EvaluateWork",
    "Explained",
    "FitTemplate",
    "FitWork",
    "JobKind",
    "JobResult",
    "JobSpec",
    "MeasureWork",
    "Measured",
    "MergeParent",
    "MergeSet",
    "MergeTemplate",
    "MergeWork",
    "ModelFiles",
    "Parameter",
    "Plan",
    "ProbeWork",
    "Progress",
    "ProxyTemplate",
    "ProxyWork",
    "QueuedSpec",
    "Refusal",
    "Resolved",
    "SampleWork",
    "Score",
    "Signals",
    "SourceFacts",
    "SourceFile",
    "Template",
    "TrainTemplate",
    "TrainWork",
    "TrialStart",
    "Work",
]
