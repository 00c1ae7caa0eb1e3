"""What a train job does for its mixing: weights found by earlier jobs, the policy, the losses, and the course kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from strategies.agent.steering import Steering
from strategies.agent.trajectories import Provenance, Trajectory, TrajectoryDomain, TrajectoryHeader, append
from strategies.contract import JobSpec, TrainWork
from strategies.contract.domains import by_domain
from strategies.errors import BadState
from strategies.inference.encoding import Encoder
from strategies.inference.score import Scorer
from strategies.jobs.dividing import classes_by
from strategies.jobs.observe import SelectLosses
from strategies.libraries import library_versions
from strategies.mixing.exact import decimals, fraction, rounded
from strategies.mixing.replay import ReplayMixer
from strategies.mixing.samplers import mixer
from strategies.mixing.simplex import caps, project
from strategies.mixing.trajectory import MixturePoint, write_trajectory
from strategies.mixing.weighted import WeightedMixer
from strategies.parts import AgentReweighting, WeightedMixing
from strategies.settings import Json
from strategies.training.data import Tick
from strategies.training.rows import Rows

MIXTURE_FILE = "mixture.json"
COURSE_FILE = "mixture.jsonl"
TRAJECTORY_FILE = "trajectory.jsonl"
MOST_POINTS = 200
"""Points of a mixture's course that stand in the lineage; the artifact has all."""


def bound(work: TrainWork, rows: Mapping[str, int]) -> TrainWork:
    """The work with the weights that an earlier job of the plan found: in the place of its own, within their limits,
    or for its agent's guard.

    ``rows`` are the rows of every source.
    """
    mixing = work.template.mixing
    if not isinstance(mixing, WeightedMixing) or mixing.mixture is None or work.mixture is None:
        return work
    weights = read_mixture(Path(work.mixture))
    if set(weights) != set(mixing.domains):
        raise BadState("the mixture that was found is of other domains; ask for the retrain again")
    floats = {name: float(fraction(weights[name], f"weight of {name}")) for name in mixing.domains}
    if isinstance(mixing.reweight, AgentReweighting):
        guarded = mixing.reweight.model_copy(update={"found": floats})
        return _with_mixing(work, mixing.model_copy(update={"reweight": guarded, "mixture": None}))
    if mixing.limits is not None:
        floats = project(floats, floor=mixing.limits.floor / len(floats), most=_most(work, mixing, rows))
    exact = rounded(floats, mixing.rest)
    found = mixing.model_copy(
        update={
            "weights": {name: decimals(weight) for name, weight in exact.items() if name != mixing.rest},
            "mixture": None,
        }
    )
    return _with_mixing(work, found)


def _with_mixing(work: TrainWork, mixing: WeightedMixing) -> TrainWork:
    return work.model_copy(update={"template": work.template.model_copy(update={"mixing": mixing})})


def _most(work: TrainWork, mixing: WeightedMixing, rows: Mapping[str, int]) -> dict[str, float] | None:
    """Greatest weight of every domain under which the job repeats none too often."""
    epochs = None if mixing.limits is None else mixing.limits.epochs_max
    if epochs is None:
        return None
    left = {name: epochs * sum(rows[source] for source in of) for name, of in mixing.domains.items()}
    return caps(left, mixing.batch * work.template.steps)


def write_mixture(folder: Path, weights: Mapping[str, float] | Mapping[str, str]) -> None:
    """A mixture for a later job, as decimal strings that sum to 1."""
    floats = {name: float(weight) for name, weight in weights.items()}
    exact = rounded(floats, max(floats, key=floats.__getitem__))
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: decimals(weight) for name, weight in exact.items()}
    (folder / MIXTURE_FILE).write_text(json.dumps({"format": 1, "weights": found}))


def read_mixture(folder: Path) -> dict[str, str]:
    """What :func:`write_mixture` left."""
    try:
        return dict(json.loads((folder / MIXTURE_FILE).read_bytes())["weights"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadState(f"the mixture at {folder} cannot be read; ask for the retrain again") from error


def sampler(
    spec: JobSpec, work: TrainWork, rows: Mapping[str, Rows], state: Json | None, *, packed: bool
) -> ReplayMixer | WeightedMixer:
    """The job's mixing, with the policy that its re-weighting names; examples of sft count by their tokens."""
    mixing = work.template.mixing
    policy = None
    if isinstance(mixing, WeightedMixing) and isinstance(mixing.reweight, AgentReweighting):
        total = work.template.steps // (mixing.observe_every or work.template.steps)
        policy = Steering(mixing.reweight, _header(spec, work, mixing, total=max(1, total)))
    sizes = {name: len(own) for name, own in rows.items()}
    tokens = {name: np.diff(own.bounds) for name, own in rows.items()} if spec.task == "sft" and not packed else None
    return mixer(mixing, sizes, steps=work.template.steps, state=state, policy=policy, tokens=tokens)


def losses_of(
    spec: JobSpec, work: TrainWork, *, encoder: Encoder, scorer: Scorer, labels: Sequence[str], tick: Tick
) -> Callable[[], Mapping[str, float]] | None:
    """Measures each domain's loss on ``select`` halves; None where nobody looks at it."""
    mixing = work.template.mixing
    if not isinstance(mixing, WeightedMixing) or mixing.observe_every is None:
        return None
    tick()
    measure = SelectLosses(
        work.select,
        spec.task,
        encoder=encoder,
        scorer=scorer,
        labels=labels,
        classes=classes_by(mixing.divide, work.space, spec.task),
    )
    return lambda: by_domain(measure(), mixing.measured)


def keep_course(spec: JobSpec, work: TrainWork, course: Sequence[MixturePoint], tokens: int, out: Path) -> Json:
    """Leave the course as evidence; returns roles and folders under ``out``."""
    write_trajectory(out / "mixture" / COURSE_FILE, course)
    found = trajectory(spec, work, course, tokens)
    if found is None:
        return {"evidence/mixture": "out/mixture"}
    (out / "trajectory").mkdir(exist_ok=True)
    (out / "trajectory" / TRAJECTORY_FILE).unlink(missing_ok=True)
    append(out / "trajectory" / TRAJECTORY_FILE, [found])
    return {"evidence/mixture": "out/mixture", "evidence/trajectory": "out/trajectory"}


def trajectory(spec: JobSpec, work: TrainWork, course: Sequence[MixturePoint], tokens: int) -> Trajectory | None:
    """The run as an agent may learn from it; None where losses were not measured twice."""
    mixing = work.template.mixing
    seen = [point for point in course if point.losses]
    if not isinstance(mixing, WeightedMixing) or len(seen) < 2:
        return None
    names = list(mixing.domains)
    header = _header(spec, work, mixing, total=len(seen) - 1)
    found = header.begun([seen[0].losses[name] for name in names])
    for before, after in pairwise(seen):
        found = found.after(
            weights=tuple(_floats(before.weights, names)),
            losses=tuple(after.losses[name] for name in names),
            tokens=tokens * (after.step - before.step) // max(1, work.template.steps),
        )
    return found


def _header(spec: JobSpec, work: TrainWork, mixing: WeightedMixing, *, total: int) -> TrajectoryHeader:
    """What an agent is told of the run, whether it steers it or learns from it."""
    new = set(mixing.new)
    prior = mixing.prior or dict.fromkeys(mixing.domains, 1 / len(mixing.domains))
    return TrajectoryHeader(
        environment=spec.stream,
        domains=tuple(
            TrajectoryDomain(
                name=name, new=bool(new & set(sources)), prior=prior[name], similarity=mixing.similarity.get(name, 0)
            )
            for name, sources in mixing.domains.items()
        ),
        total=total,
        provenance=Provenance(
            seeds={"data": mixing.order, "job": spec.seed},
            settings=work.template.model_dump(mode="json", include={"schedule", "steps", "mixing"}),
            data={source.name: source.sha256 for source in work.sources},
            versions=library_versions(),
        ),
    )


def thinned(course: Sequence[MixturePoint]) -> list[Json]:
    """At most :data:`MOST_POINTS` points, the last one among them."""
    stride = -(-len(course) // MOST_POINTS)
    kept = [*course[::stride]]
    if course and kept[-1] is not course[-1]:
        kept.append(course[-1])
    return [point.model_dump(mode="json") for point in kept]


def _floats(weights: Mapping[str, str], names: Sequence[str]) -> list[float]:
    return [float(fraction(weights[name], name)) for name in names]
