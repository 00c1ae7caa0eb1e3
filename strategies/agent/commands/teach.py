"""``rekindle mixing train``: teach an agent from trajectories."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from strategies.agent.commands.collect import RUNS
from strategies.agent.commands.proxies import Tell
from strategies.agent.folder import CARD, WEIGHTS
from strategies.agent.learning import Learner, train
from strategies.agent.policy import Agent
from strategies.agent.requests import Report, Teach
from strategies.agent.trajectories import Trajectory, line, read
from strategies.errors import BadState, Refused
from strategies.inference.precision import device_for
from strategies.settings import Json
from strategies.training.checkpoint import CheckpointStore

UNFINISHED = "unfinished"
SAVE_EVERY = 25
"""Updates of an agent that an interruption may cost."""


def teach(request: Teach, tell: Tell) -> Json:
    """Fit an agent to the trajectories and save it; goes on where an interruption left it.

    Raises:
        Refused: ``out`` holds an unfinished agent of other trajectories or settings.
    """
    # A run that is given twice is one run.
    runs = {line(run): run for path in request.trajectories for run in _trajectories(Path(path))}
    learner = Learner([*runs.values()], request.agent, request.learning, device=device_for("auto"))
    out = Path(request.out)
    last = _taught(learner, out / UNFINISHED, tell)
    Agent.of(learner).save(out)
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    return {
        "agent": request.out,
        "bytes": sum((out / name).stat().st_size for name in (CARD, WEIGHTS)),
        "lessons": learner.lessons.model_dump(mode="json"),
        "last": last,
    }


def _trajectories(path: Path) -> Iterator[Trajectory]:
    file = path / RUNS if path.is_dir() else path
    if not file.is_file():
        raise Refused(f"there are no trajectories at {file}; `rekindle mixing collect` makes some")
    yield from read(file)


def _taught(learner: Learner, unfinished: Path, tell: Tell) -> dict[str, float]:
    """All updates that are left, with checkpoints in ``unfinished``; returns the losses of the last."""

    def say(text: str) -> None:
        tell(Report(text=text, step=learner.done, steps=learner.total))

    store = CheckpointStore(unfinished, fingerprint="agent", say=say)
    _resume(learner, store)
    last: dict[str, float] = {}
    for losses in train(learner):
        last = losses
        if learner.done % SAVE_EVERY == 0 and learner.done < learner.total:
            store.save(learner.checkpoint())
        say("training the agent")
    store.wait()
    return last


def _resume(learner: Learner, store: CheckpointStore) -> None:
    found = store.load()
    if found is None:
        return
    try:
        learner.restore(found)
    except BadState as error:
        raise Refused(f"{error}: remove {store.folder}, or train into a new folder") from error
