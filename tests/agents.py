"""A tiny agent that hardly learned anything, where only what it is asked and what becomes of it counts."""

from __future__ import annotations

from pathlib import Path

from strategies.agent.learning import Learner
from strategies.agent.policy import Agent
from strategies.agent.trajectories import TrajectoryDomain, TrajectoryHeader
from strategies.settings.agent import AgentSettings, LearningSettings

PRIOR = {"old": 0.75, "new": 0.25}
DOMAINS = tuple(
    TrajectoryDomain(name=name, new=name == "new", prior=share, similarity=0.5 if name == "old" else 1.0)
    for name, share in PRIOR.items()
)


def taught(folder: Path) -> Path:
    """The folder, with an agent of two runs on two domains."""
    header = TrajectoryHeader(environment="proxy", domains=DOMAINS, total=3)
    runs = []
    for share in (0.2, 0.8):
        run = header.begun((3.0, 5.0))
        for step in range(3):
            run = run.after(weights=(share, 1 - share), losses=(3.0 - share * step, 5.0 - step), tokens=64)
        runs.append(run)
    learner = Learner(
        runs,
        AgentSettings(width=8, heads=2, critic_width=4),
        LearningSettings(warm_steps=2, steps=1, batch=4, proposals=3),
    )
    while learner.done < learner.total:
        learner.advance()
    folder.mkdir(exist_ok=True)
    Agent.of(learner).save(folder)
    return folder
