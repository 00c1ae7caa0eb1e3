"""From a trained task adapter to the next bank: statistics, alignment, router, and every file of the folder."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from strategies.errors import Refused
from strategies.inference.bank.adapted import AdaptedClassifier
from strategies.inference.bank.domains import LENGTHS, OPENING, Prompts, read_of
from strategies.inference.bank.files import (
    ADAPTERS,
    HEAD,
    VECTORS,
    Entry,
    Form,
    Manifest,
    stored_digest,
    write_manifest,
    write_tensors,
)
from strategies.inference.bank.padding import padded
from strategies.inference.calibration import (
    Domain,
    measure_domain,
    middle_layer,
    read_domains,
    router_vectors,
    write_domains,
)
from strategies.inference.encoding import IGNORED, Encoder
from strategies.inference.export import plain_adapter
from strategies.inference.precision import Precision
from strategies.inference.score import MAX_LOGITS
from strategies.inference.statistics import (
    Gaussian,
    Prototype,
    Statistics,
    align,
    gather,
    is_diagonal,
    read_statistics,
    write_statistics,
)
from strategies.settings import Json, TrainingSettings
from strategies.settings.consolidation import TaskMeanConsolidation
from strategies.training.adapters import Adaptation
from strategies.training.rows import Rows

PROTOTYPE = "prototypes"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A task's adapter after training, and the rows that it was trained on."""

    adaptation: Adaptation
    rows: Mapping[str, Rows]
    encoder: Encoder
    labels: tuple[str, ...]
    precision: Precision
    settings: TaskMeanConsolidation
    training: TrainingSettings
    pad: int
    seed: int
    tick: Callable[[], None]


def write_bank(trained: Trained, folder: Path) -> Json:
    """Write the bank that holds all earlier adapters as they were and the new one; returns facts of the job."""
    folder.mkdir(parents=True)
    adaptation = trained.adaptation
    adaptation.model.eval()
    entries = (*_earlier(adaptation, folder), _save(adaptation, folder, sources=tuple(sorted(trained.rows))))
    if isinstance(adaptation.model, AdaptedClassifier):
        return _write_classes(trained, entries, folder)
    return _write_domains(trained, entries, folder)


def _earlier(adaptation: Adaptation, folder: Path) -> tuple[Entry, ...]:
    """Copies of the stored adapters, byte for byte."""
    if adaptation.bank is None or adaptation.manifest is None:
        return ()
    shutil.copytree(adaptation.bank / ADAPTERS, folder / ADAPTERS)
    return adaptation.manifest.adapters


def _save(adaptation: Adaptation, folder: Path, *, sources: tuple[str, ...]) -> Entry:
    name = adaptation.selection.name
    adaptation.adapted.save_pretrained(folder / ADAPTERS, selected_adapters=[name], save_embedding_layers=False)
    (folder / ADAPTERS / "README.md").unlink(missing_ok=True)
    plain_adapter(folder / ADAPTERS / name)
    return Entry(name=name, sha256=stored_digest(folder / ADAPTERS / name), sources=sources)


# --- classes -----------------------------------------------------------------------------------------------------


def _write_classes(trained: Trained, entries: tuple[Entry, ...], folder: Path) -> Json:
    adaptation, model, settings = trained.adaptation, trained.adaptation.model, trained.settings
    before = read_statistics(adaptation.bank) if adaptation.bank else Statistics()
    first, own = entries[0].name, adaptation.selection.name
    if first != own:
        model.body.load_adapter(str(folder / ADAPTERS / first), adapter_name=first, torch_device="cpu")
        model.body.requires_grad_(False).to(trained.precision.device)
    diagonal = is_diagonal(model.classifier.in_features, settings.covariance)
    found = gather(_features(trained, own), diagonal=diagonal)
    under_first = found if first == own else gather(_features(trained, first), diagonal=True)
    made = {trained.labels[at]: moments.gaussian() for at, moments in sorted(found.items())}
    kept = {label: one.count for label, one in before.gaussians.items()}
    taken = [label for label, one in made.items() if one.count >= kept.get(label, 0)]
    gaussians = {**before.gaussians, **{label: made[label] for label in taken}}
    prototypes = dict(before.prototypes)
    for at, moments in sorted(under_first.items()):
        label = trained.labels[at]
        prototypes[label] = _joined(prototypes.get(label), Prototype(mean=moments.mean, count=moments.count))
    losses = _align(trained, gaussians) if len(entries) > 1 else []
    owners = _owners(trained, taken, len(entries) - 1)
    rows = [prototypes[label].mean if label in prototypes else torch.zeros(model.classifier.in_features).double()
            for label in trained.labels]  # fmt: skip
    files = {
        HEAD: write_tensors(folder / HEAD, model.classifier.state_dict()),
        VECTORS: write_tensors(folder / VECTORS, {PROTOTYPE: torch.stack(rows)}),
    }
    write_statistics(folder, Statistics(gaussians=gaussians, prototypes=prototypes))
    manifest = Manifest(
        kind="classes",
        base=adaptation.base,
        adapters=entries,
        labels=trained.labels,
        owners=owners,
        pooling=adaptation.selection.pooling,
        rounds=settings.router.rounds,
        max_length=trained.training.max_length,
        files=files,
    )
    write_manifest(folder, manifest)
    return {"align_losses": losses, "classes": {name: one.count for name, one in gaussians.items()}}


def _joined(before: Prototype | None, now: Prototype) -> Prototype:
    """A class that comes again: its mean over all its samples, all of them under the first adapter."""
    if before is None:
        return now
    total = before.count + now.count
    return Prototype(mean=before.mean + (now.mean - before.mean) * (now.count / total), count=total)


def _owners(trained: Trained, own: Sequence[str], place: int) -> tuple[int, ...]:
    """The adapter of each class: the last task that had as many samples of it as the one before, or more."""
    manifest = trained.adaptation.manifest
    owners = dict(zip(manifest.labels, manifest.owners, strict=True)) if manifest else {}
    owners |= dict.fromkeys(own, place)
    return tuple(owners.get(label, -1) for label in trained.labels)


def _align(trained: Trained, gaussians: Mapping[str, Gaussian]) -> list[float]:
    if trained.settings.align is None:
        return []
    head = trained.adaptation.model.classifier.requires_grad_(True)
    placed = {trained.labels.index(label): gaussian for label, gaussian in gaussians.items()}
    return align(head, placed, trained.settings.align, batch=trained.training.train_batch_size, seed=trained.seed)


def _features(trained: Trained, adapter: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Features and classes of all rows under one adapter, a batch at a time."""
    device, size = trained.precision.device, trained.training.per_device_eval_batch_size
    for rows in trained.rows.values():
        if rows.labels is None:
            raise Refused("class statistics need labelled rows")
        for start in range(0, len(rows), size):
            trained.tick()
            places = range(start, min(start + size, len(rows)))
            ids, mask = padded([rows.ids[slice(*rows.bounds[at : at + 2])] for at in places], trained.pad)
            inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
            with torch.inference_mode(), trained.precision.autocast():
                made = trained.adaptation.model.features(inputs, [adapter] * len(ids))
            yield made, torch.from_numpy(rows.labels[list(places)])


# --- domains -----------------------------------------------------------------------------------------------------


def _write_domains(trained: Trained, entries: tuple[Entry, ...], folder: Path) -> Json:
    adaptation, router = trained.adaptation, trained.settings.router
    names = [entry.name for entry in entries]
    layer, form = middle_layer(adaptation.model), _form(trained)
    lengths = LENGTHS if form == "text" else (1,)
    domains: dict[str, Domain] = read_domains(adaptation.bank, names[:-1]) if adaptation.bank else {}
    with trained.precision.autocast():
        domains[names[-1]] = measure_domain(
            adaptation.model,
            names[-1],
            _prompts(trained),
            layer=layer,
            covariance=trained.settings.covariance,
            lengths=lengths,
        )
    vectors = router_vectors([domains[name] for name in names], percentile=router.percentile)
    write_domains(folder, domains)
    manifest = Manifest(
        kind="domains",
        base=adaptation.base,
        adapters=entries,
        rounds=router.rounds,
        max_length=trained.training.max_length,
        prior=router.prior,
        temperature=router.temperature,
        threshold=router.threshold,
        layer=layer,
        form=form,
        lengths=lengths,
        files={VECTORS: write_tensors(folder / VECTORS, vectors)},
    )
    write_manifest(folder, manifest)
    gains = vectors["gains"].tolist()
    return {"domains": {name: {"gain": gain[0], "spread": gain[1]} for name, gain in zip(names, gains, strict=True)}}


def _form(trained: Trained) -> Form:
    texts = any(rows.starts is not None for rows in trained.rows.values())
    return "text" if texts else trained.encoder.form


def _prompts(trained: Trained) -> Iterator[Prompts]:
    """What evaluation would route the domain's rows by, spread evenly over all of them, a batch at a time."""
    window = trained.training.max_length
    found = [(rows, spot) for rows in trained.rows.values() for spot in _spots(rows, trained.encoder, window)]
    count = min(len(found), trained.settings.router.documents)
    chosen = [found[at] for at in np.linspace(0, len(found) - 1, count).astype(int)] if count else []
    device = trained.precision.device
    vocabulary = int(trained.adaptation.model.config.get_text_config().vocab_size)
    most = read_of(_form(trained), window)
    size = max(1, min(trained.training.per_device_eval_batch_size, MAX_LOGITS // (most * vocabulary)))
    for start in range(0, count, size):
        trained.tick()
        prompts = [_prompt(rows, *spot, encoder=trained.encoder) for rows, spot in chosen[start : start + size]]
        ids, mask = padded(prompts, trained.pad)
        yield Prompts.cut(ids.to(device), mask.sum(1), most=most)


def _spans(rows: Rows) -> list[tuple[int, int]]:
    """Where each text or example stands; a packed row holds several examples, each of which begins at position 0."""
    starts = rows.starts
    if starts is None:
        starts = rows.bounds[:-1] if rows.positions is None else np.flatnonzero(rows.positions == 0)
    return list(itertools.pairwise([*starts.tolist(), int(rows.bounds[-1])]))


def _spots(rows: Rows, encoder: Encoder, window: int) -> Iterator[tuple[int, int, int]]:
    """Where each prompt is: its text or example, and the token of it that the prompt begins at.

    A text is scored in windows, each routed by itself: all that fill an opening are prompts, and the first always is.
    """
    for start, stop in _spans(rows):
        further = 0 if rows.targets is not None else max(0, stop - start - len(encoder.start) - OPENING)
        for at in range(0, further + 1, window):
            yield start, stop, at


def _prompt(rows: Rows, start: int, stop: int, at: int, *, encoder: Encoder) -> np.ndarray:
    """Token ids of an example's prompt, or of a text's opening: neither the answer nor what closes a text."""
    if rows.targets is not None:
        return rows.ids[start : start + 1 + int(np.argmax(rows.targets[start:stop] != IGNORED))]
    text = rows.ids[start + len(encoder.start) : stop - 1]
    return np.array([encoder.opening, *text[: at + OPENING]][at : at + OPENING])
