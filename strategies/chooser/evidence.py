"""The signals in words, one line each: what a decision shows of what was measured before it."""

from __future__ import annotations

from collections.abc import Iterable

from strategies.chooser.case import new_domains
from strategies.contract import Signals, SourceFacts
from strategies.contract.circumstances import Circumstances, EarlierDecision, Forgotten
from strategies.contract.probe import ProbeResult
from strategies.planning import share
from strategies.words import counted


def in_words(signals: Signals) -> dict[str, str]:
    """Name -> figures; what was not measured says so."""
    around = signals.circumstances
    measured = share.shift(signals)
    return {
        "new data": _amount(signals.new),
        "old data": _amount(signals.old) if signals.old else "none",
        "anchor": "none" if signals.anchor is None else _amount([signals.anchor]),
        "shift": "not measured" if measured is None else f"{measured.value:+.1%} ({measured.origin})",
        "new classes": _labels(around) if signals.task == "classification" else "no classes in this task",
        "new domains": _domains(signals),
        "duplicates": _duplicates(around),
        "forgetting": "; ".join(_forgotten(one) for one in around.forgotten) or "not measured over two versions yet",
        "hardware": _hardware(around),
        "budget": _budget(around),
        "earlier decisions": _decisions(around),
        **({} if around.probe is None else _probe(around.probe)),
    }


def _probe(found: ProbeResult) -> dict[str, str]:
    """The course of the halving, a line a round."""
    numbers = sorted({one.round for one in found.trials})
    return {"probe": found.reason} | {f"probe, round {number + 1}": _round(found, number) for number in numbers}


def _round(found: ProbeResult, number: int) -> str:
    shown = sorted((one for one in found.trials if one.round == number), key=lambda one: one.score)
    return "; ".join(
        f"{one.candidate} {one.score:+.2%} after {counted(one.steps, 'step')}"
        + ("" if one.judged is None else f", judged {one.judged:+.2%}")
        for one in shown
    )


def _amount(sources: Iterable[SourceFacts]) -> str:
    found = list(sources)
    documents, tokens = sum(one.documents for one in found), sum(one.tokens for one in found)
    rows = counted(sum(one.rows for one in found), "row")
    return f"{counted(documents, 'document')}, {counted(tokens, 'token')}, {rows} in {counted(len(found), 'source')}"


def _labels(around: Circumstances) -> str:
    return f"{', '.join(around.new_labels) or 'none'}, beside {counted(len(around.known_labels), 'known one')}"


def _domains(signals: Signals) -> str:
    """Batches that are far from all that is known, and domains within batches that no earlier one had."""
    known = {one.name for source in share.replayable(signals) for one in source.classes}
    inside = sorted({one.name for source in signals.new for one in source.classes} - known)
    return ", ".join([*(f"{name} (by its loss)" for name in new_domains(signals)), *inside]) or "none"


def _duplicates(around: Circumstances) -> str:
    if around.duplicate_share is None:
        return "not measured"
    return (
        f"{around.duplicate_share:.1%} of {counted(around.arrived, 'arrived document')} had come before;"
        f" {counted(around.near_duplicates, 'near-duplicate')}"
    )


def _forgotten(one: Forgotten) -> str:
    return (
        f"{one.eval_set} {one.change} (now {one.now:.4g}, before at best {one.best:.4g},"
        f" {counted(one.versions, 'version')} measured, {one.allowed} allowed)"
    )


def _hardware(around: Circumstances) -> str:
    found = around.hardware
    if found is None:
        return "not measured"
    memory = "" if found.memory_gib is None else f", {found.memory_gib:g} GiB of memory"
    there = f"{counted(found.cores, 'core')}{memory}, {counted(found.gpus, 'GPU')}"
    return f"{there}; a job takes {counted(found.job_cores, 'core')} and {counted(found.job_gpus, 'GPU')}"


def _budget(around: Circumstances) -> str:
    if around.max_hours is None:
        return "none"
    speed = f"; the last training made {around.tokens_per_s:g} tokens/s" if around.tokens_per_s else ""
    return f"{around.max_hours:g} h a job{speed}"


def _decisions(around: Circumstances) -> str:
    return "; ".join(_decision(one) for one in around.decisions) or "none"


def _decision(one: EarlierDecision) -> str:
    replay = f" with {one.replay:.0%} replay" if one.replay else ""
    why = " for forgetting" if one.result == "refused" and one.only_forgot else ""
    why = f" ({one.reason})" if one.result == "rolled back" else why
    return f"{one.decision} {one.choice or one.strategy}{replay} {one.result}{why}"
