"""The gate: may this candidate go live? A pure function of the evidence and the settings.

Only the ``judge`` halves are evidence. Documents are resampled in pairs (bootstrap), with a seed made of their digests;
bounds are one-sided at ``confidence``, wider for few documents. A change is how much worse the candidate is: the
relative rise of the loss a token, or the fall of the accuracy in points.

*New data* (the decision's own batches, judged together as one sample)
    fail          the change is not below 0: the candidate is not better
    inconclusive  it is better, but the upper bound is beyond ``new_data_margin``
    pass          it is better, and the upper bound is within the margin
*Every older set*, against the live version (``tolerance``) and against the best ever live (``best_tolerance``)
    fail          the lower bound is beyond the tolerance
    pass          the upper bound is within the tolerance
    inconclusive  otherwise
*Flips* on every older set against the live version: documents whose loss rises by more than ``flip_rise``, or that were
right and are wrong
    pass          their share is within the limit
    fail          its exact (Clopper-Pearson) lower bound is beyond the limit
    inconclusive  otherwise
*Any set* with fewer than two documents is inconclusive. Older batches and pools that small are judged together, a lone
one with the smallest of the others; where there is no other it waits for one, for alone it could be judged by none of
the candidates to come. A candidate with a loss that is no number fails.

A set's outcome is the worst of its parts, the overall outcome the worst of the sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.policies.bounds import bounds, resampled_sums, share_lower_bound
from orchestrator.policies.evidence import Comparison, Evidence, SetEvidence, Values, cleaned, joined
from orchestrator.policies.verdict import Change, Flip, Flips, GateVerdict, Outcome, SetVerdict, worst
from orchestrator.settings import GateSettings
from strategies.scores import LEAST_LOSS
from strategies.words import counted

Against = Literal["live", "best"]
MIN_DOCUMENTS = 2
EXAMPLES = 5
ORDER = {"anchor": 0, "fixed": 1, "batch": 2, "pool": 3}


def judge(evidence: Evidence, settings: GateSettings) -> GateVerdict:
    """Judge every set, new data first, then the anchor and the other older ones."""
    sets = tuple(_judge_set(one, members, settings) for one, members in _samples(evidence))
    outcome = worst(one.outcome for one in sets) if sets else "inconclusive"
    return GateVerdict(
        candidate=evidence.candidate,
        live=evidence.live,
        outcome=outcome,
        reason=_overall_reason(outcome, sets),
        only_forgot=_only_forgot(outcome, sets),
        sets=sets,
    )


def _samples(evidence: Evidence) -> list[tuple[SetEvidence, tuple[str, ...]]]:
    """The sets as they are judged, each with the names of the sets it is made of."""
    sets = [cleaned(one) for one in evidence.sets]
    new = [one for one in sets if one.role == "new"]
    old = [one for one in sets if one.role == "old"]
    old.sort(key=lambda one: (ORDER.get(one.kind, len(ORDER)), one.name))
    joining = _joining(old)
    names = {one.name for one in joining}
    groups = [("new data", new), *((one.name, [one]) for one in old if one.name not in names)]
    if _documents(joining) >= MIN_DOCUMENTS:
        groups.append(("small older sets", joining))
    return [_together(name, members) for name, members in groups if members]


def _joining(old: Sequence[SetEvidence]) -> list[SetEvidence]:
    """The batches and pools that are too small to be judged by themselves, with as many more as make them enough."""
    by_size = sorted((one for one in old if one.kind in ("batch", "pool")), key=lambda one: len(one.digests))
    taken = sum(1 for one in by_size if len(one.digests) < MIN_DOCUMENTS)
    return by_size[: taken + 1] if taken > 0 and _documents(by_size[:taken]) < MIN_DOCUMENTS else by_size[:taken]


def _documents(sets: Iterable[SetEvidence]) -> int:
    return sum(len(one.digests) for one in sets)


def _together(name: str, members: list[SetEvidence]) -> tuple[SetEvidence, tuple[str, ...]]:
    names = tuple(one.name for one in members)
    return (members[0] if len(members) == 1 else cleaned(joined(name, tuple(members)))), names


def _judge_set(one: SetEvidence, members: tuple[str, ...], settings: GateSettings) -> SetVerdict:
    changes: tuple[Change, ...] = ()
    flips: Flips | None = None
    unusable = _unusable(one)
    if unusable is not None:
        outcome, reason = unusable
    else:
        changes, flips = _changes(one, settings), _flips(one, settings)
        parts = [*((change.outcome, change.reason) for change in changes), (flips.outcome, flips.reason)]
        outcome = worst(part for part, _ in parts)
        reason = "; ".join(reason for part, reason in parts if part == outcome)
    return SetVerdict(
        name=one.name,
        members=members,
        kind=one.kind,
        role=one.role,
        metric=one.metric,
        documents=len(one.digests),
        outcome=outcome,
        reason=reason,
        changes=changes,
        flips=flips,
    )


def _unusable(one: SetEvidence) -> tuple[Outcome, str] | None:
    """Why the set cannot be measured at all, if so."""
    if len(one.digests) < MIN_DOCUMENTS:
        return "inconclusive", f"{len(one.digests)} documents to judge on; at least {MIN_DOCUMENTS} are needed"
    compared = [one.live] if one.best is None else [one.live, one.best]
    if not all(np.isfinite(each.candidate).all() for each in compared):
        return "fail", f"the candidate's {one.metric} is not a number on some documents"
    broken = [each.version for each in compared if not np.isfinite(each.reference).all()]
    if broken:
        return "inconclusive", f"the {one.metric} of {broken[0]} is not a number on some documents"
    return None


def _changes(one: SetEvidence, settings: GateSettings) -> tuple[Change, ...]:
    """The candidate against the live version and, on older sets, against the best that was ever live."""
    best = one.best if one.role == "old" else None
    compared = [one.live] if best is None else [one.live, best]
    totals = [_totals(one, each) for each in compared]
    # One resampling serves both comparisons.
    resampled = resampled_sums(np.concatenate(totals, axis=1), digests=one.digests, resamples=settings.resamples)
    against_live = _change(one, one.live, "live", totals=totals[0], resampled=resampled[:, :3], settings=settings)
    if best is None:
        return (against_live,)
    against_best = _change(one, best, "best", totals=totals[1], resampled=resampled[:, 3:], settings=settings)
    return against_live, against_best


def _limit(one: SetEvidence, against: Against, settings: GateSettings) -> float:
    return settings.new_data_margin if one.role == "new" else settings.tolerance(one.metric, against)


def _change(
    one: SetEvidence,
    compared: Comparison,
    against: Against,
    *,
    totals: Values,
    resampled: Values,
    settings: GateSettings,
) -> Change:
    limit = _limit(one, against, settings)
    candidate, reference, weight = (float(total) for total in totals.sum(axis=0))
    point = float(_worsening(one, totals.sum(axis=0, keepdims=True))[0])
    worsenings = _worsening(one, resampled)
    lower, upper = bounds(worsenings, documents=len(one.digests), confidence=settings.confidence)
    known = compared.unrestricted or (None, None)
    between = " and ".join(_shown(one, bound) for bound in sorted((lower, upper), reverse=one.metric != "loss"))
    said = (
        f"{one.metric} {candidate / weight:.4g} against {reference / weight:.4g} of {against} {compared.version}: "
        f"{_shown(one, point)}, {settings.confidence:.0%} bounds {between}, "
        f"allowed {_shown(one, limit)}"
    )
    return Change(
        against=compared.version,
        role=against,
        candidate=candidate / weight,
        reference=reference / weight,
        change=point,
        lower=lower,
        upper=upper,
        limit=limit,
        candidate_unrestricted=known[0],
        reference_unrestricted=known[1],
        outcome=_better(point, upper, limit) if one.role == "new" else _not_worse(lower, upper, limit),
        reason=f"not better: {said}" if one.role == "new" and point >= 0 else said,
    )


def _totals(one: SetEvidence, compared: Comparison) -> Values:
    """Columns: the candidate's total, the reference's total, the weight; one row a document."""
    scale = one.weights if one.metric == "accuracy" else np.ones_like(one.weights)
    return np.stack([compared.candidate * scale, compared.reference * scale, one.weights], axis=1)


def _worsening(one: SetEvidence, sums: Values) -> Values:
    """:func:`strategies.scores.worsening` of each row of sums."""
    candidate, reference, weight = sums.T
    if one.metric == "loss":
        rise: Values = (candidate - reference) / np.maximum(reference, LEAST_LOSS)
        return rise
    fall: Values = (reference - candidate) / weight
    return fall


def _better(point: float, upper: float, margin: float) -> Outcome:
    if point >= 0:
        return "fail"
    return "pass" if upper <= margin else "inconclusive"


def _not_worse(lower: float, upper: float, tolerance: float) -> Outcome:
    if lower > tolerance:
        return "fail"
    return "pass" if upper <= tolerance else "inconclusive"


def _flips(one: SetEvidence, settings: GateSettings) -> Flips:
    """Documents that the live version did better, on new data counted only."""
    loss = one.metric == "loss"
    limit = settings.max_flips_loss if loss else settings.max_flips_accuracy
    before, after = one.live.reference, one.live.candidate
    flipped = after > before * (1 + settings.flip_rise) if loss else before > after
    count, documents = int(flipped.sum()), len(flipped)
    lower = share_lower_bound(count, documents, settings.confidence)
    outcome = _flips_outcome(one, share=count / documents, lower=lower, limit=limit)
    return Flips(
        count=count,
        documents=documents,
        share=count / documents,
        lower=lower,
        limit=limit,
        examples=_examples(one, flipped),
        outcome=outcome,
        reason=f"{count} of {documents} documents got worse ({count / documents:.1%}, allowed {limit:.1%})",
    )


def _flips_outcome(one: SetEvidence, *, share: float, lower: float, limit: float) -> Outcome:
    if one.role == "new" or share <= limit:
        return "pass"
    return "fail" if lower > limit else "inconclusive"


def _examples(one: SetEvidence, flipped: NDArray[np.bool_]) -> tuple[Flip, ...]:
    """The flips that got worst, at most five."""
    scale = one.weights if one.metric == "loss" else np.ones_like(one.weights)
    before, after = one.live.reference / scale, one.live.candidate / scale
    rise = np.where(flipped, np.abs(after - before) / np.maximum(before, LEAST_LOSS), -1.0)
    chosen = [at for at in np.argsort(-rise, kind="stable")[:EXAMPLES] if flipped[at]]
    return tuple(Flip(digest=one.digests[at], before=before[at], after=after[at]) for at in chosen)


def _shown(one: SetEvidence, worsening: float) -> str:
    return f"{worsening:+.1%}" if one.metric == "loss" else f"{-100 * worsening:+.1f} points"


def _overall_reason(outcome: Outcome, sets: tuple[SetVerdict, ...]) -> str:
    if not sets:
        return "there is no eval set to judge on; register an anchor or wait for a batch with held-out documents"
    if outcome != "pass":
        return ". ".join(f"{one.name}: {one.reason}" for one in sets if one.outcome == outcome)
    older = [one for one in sets if one.role == "old"]
    news = [f"{one.name}: {one.changes[0].reason}" for one in sets if one.role == "new"]
    kept = f"{counted(len(older), 'older eval set')} within tolerance" if older else "there is no older eval set"
    return ". ".join([*news, kept])


def _only_forgot(outcome: Outcome, sets: tuple[SetVerdict, ...]) -> bool:
    new = [one.outcome for one in sets if one.role == "new"]
    return outcome == "fail" and bool(new) and worst(new) == "pass"
