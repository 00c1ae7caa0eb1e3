"""The proxy that a command tries mixtures on, and the mixture that RegMix finds by runs of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor

from strategies.agent.environment import ProxyEnvironment
from strategies.agent.requests import Collect, DomainFile, Evaluate, Report
from strategies.agent.rollout import Mixture, constant, rollout
from strategies.agent.texts import read_domains
from strategies.agent.trajectories import Trajectory
from strategies.contract.regmix import FitSettings, ProxyRun
from strategies.fitting.regmix import fit
from strategies.inference.precision import device_for
from strategies.mixing.regmix import candidates
from strategies.settings.agent import ProxySettings

Tell = Callable[[Report], None]
Keep = Callable[[str, Callable[[], Trajectory]], Trajectory]
"""The run of that name, which may have been kept, or a new one."""


def environment_of(
    files: Sequence[DomainFile],
    proxy: ProxySettings,
    tell: Tell,
    *,
    name: str,
    start: Mapping[str, Tensor] | None = None,
) -> ProxyEnvironment:
    """The proxy on the domains of ``files``, where a job would train it; its shared start is made unless given."""
    domains = read_domains(files, vocabulary=proxy.vocabulary, row=proxy.length)
    tell(Report(text="making the shared start", step=0, steps=0))
    return ProxyEnvironment(name, domains, proxy, device=device_for("auto"), start=start)


def regmix_mixture(environment: ProxyEnvironment, request: Collect | Evaluate, tell: Tell, kept: Keep) -> Mixture:
    """RegMix's mixture from tiny runs on the same domains, under the same start."""
    settings: ProxySettings = request.proxy.model_copy(update={"steps": 1, "step_tokens": request.regmix_tokens})
    tiny = environment.under(settings)
    names = [domain.name for domain in tiny.domains]
    prior = {domain.name: domain.prior for domain in tiny.domains}
    runs = []
    for at, weights in enumerate(candidates(prior, request.regmix_runs, seed="regmix")):
        mixture = [weights[name] for name in names]
        key = f"regmix-tiny-{at}-{digest(mixture)}"
        run = kept(key, partial(rollout, tiny, constant(mixture), seed=settings.seed))
        runs.append(ProxyRun(weights=weights, losses=dict(zip(names, run.steps[-1].losses, strict=True))))
        tell(Report(text="regmix's tiny runs", step=len(runs), steps=request.regmix_runs))
    found = fit(runs, _fit_settings(tiny, prior)).mixture
    return [float(found[name]) for name in names]


def digest(mixture: Mixture) -> str:
    """Names a run by the mixture that it was on."""
    return hashlib.sha256(json.dumps(list(mixture)).encode()).hexdigest()[:12]


def _fit_settings(tiny: ProxyEnvironment, prior: Mapping[str, float]) -> FitSettings:
    """Old and new domains weigh the same; those of one side alone weigh all."""
    old, new = (tuple(domain.name for domain in tiny.domains if domain.new is side) for side in (False, True))
    old_weight = 0.5 if old and new else float(bool(old))
    return FitSettings(prior=dict(prior), tokens=dict(prior), budget=1.0, old=old, new=new, old_weight=old_weight)
