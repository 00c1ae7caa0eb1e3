"""Banks for the tests of task adapters: jobs that make them, texts of worlds that hardly share a word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from strategies.contract import ModelFiles
from strategies.inference.bank import ClassBank, DomainBank
from strategies.inference.load import load
from strategies.settings import Task
from tests.training import makers

WORLDS = {
    "calm": "quiet lake morning rest",
    "angry": "shout slam fury storm",
    "red": "8 6 4 2 0",
    "blue": "1 3 5 7 9",
}
LORA = {"r": 4, "lora_alpha": 8}
ADAPTER = {"kind": "adapter", "lora": LORA, "head_rate": 10.0, "pooling": "mean"}


def told(labels: Sequence[str], count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Labelled texts; each is of its label's world alone and longer or shorter than the next."""
    return [
        {"text": " ".join([WORLDS[label]] * (2 + i % 3) + [f"#{i}"]), "label": label}
        for i in range(start, start + count)
        for label in [labels[i % len(labels)]]
    ]


def spoken(label: str, count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Texts of one world."""
    words = WORLDS[label].split()
    return [
        {"text": " ".join(words[(i + j * (1 + i % 3)) % len(words)] for j in range(40))}
        for i in range(start, start + count)
    ]


def class_job(
    folder: Path, model: Path, labels: Sequence[str], *, name: str, known: Sequence[str] = (), **changes: Any
) -> dict[str, Any]:
    """A train job that teaches ``labels`` to a new adapter ``name``."""
    folder.mkdir(parents=True, exist_ok=True)
    bank, rows = changes.pop("bank", None), changes.pop("rows", None)
    return makers.train_job(
        folder,
        model,
        told(labels, 24) if rows is None else rows,
        task="classification",
        selection={**ADAPTER, "name": name, **changes.pop("selection", {})},
        objective={"kind": "local", **changes.pop("objective", {})},
        consolidation={"kind": "task-mean", **changes.pop("consolidation", {})},
        job={"model": {"labels": [*known, *labels], "bank": bank and str(bank)}},
        **changes,
    )


def domain_job(
    folder: Path, model: Path, rows: Sequence[dict[str, Any]], *, name: str, **changes: Any
) -> dict[str, Any]:
    """A train job that teaches a language model's new adapter ``name``."""
    folder.mkdir(parents=True, exist_ok=True)
    bank = changes.pop("bank", None)
    return makers.train_job(
        folder,
        model,
        rows,
        selection={**ADAPTER, "name": name, **changes.pop("selection", {})},
        consolidation={"kind": "task-mean", **changes.pop("consolidation", {})},
        job={"model": {"bank": bank and str(bank)}},
        **changes,
    )


def hurried(steps: int, lr: float = 1e-2) -> dict[str, Any]:
    """Changes of a job that learns something in a second."""
    return {"steps": steps, "schedule": {"kind": "cosine", "steps": steps, "warmup": 2, "lr": lr, "min_lr": lr / 10}}


def made(folder: Path, job: dict[str, Any]) -> Path:
    """Carry a job out; the bank that it left."""
    makers.carry_out(folder, job)
    return folder / "out" / "bank"


def class_bank(folder: Path, model: Path) -> Path:
    """Two tasks of two classes each."""
    first = made(folder / "1", class_job(folder / "a", model, ("calm", "angry"), name="t1", **hurried(16)))
    job = class_job(
        folder / "b",
        model,
        ("red", "blue"),
        known=("calm", "angry"),
        name="t2",
        bank=first,
        selection={"start": "t1"},
        **hurried(16),
    )
    return made(folder / "2", job)


def domain_bank(folder: Path, model: Path, **router: Any) -> Path:
    """Two domains of a language model."""
    routing = {"consolidation": {"router": router}}
    first = made(folder / "1", domain_job(folder / "a", model, spoken("calm", 24), name="t1", **hurried(16), **routing))
    second = domain_job(
        folder / "b",
        model,
        spoken("red", 24),
        name="t2",
        bank=first,
        selection={"start": "t1"},
        **hurried(16),
        **routing,
    )
    return made(folder / "2", second)


def asked(label: str, count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Dialogues of one world."""
    texts = [row["text"] for row in spoken(label, count, start=start)]
    return [
        {
            "messages": json.dumps(
                [{"role": "user", "content": text[:90]}, {"role": "assistant", "content": f"{label} {text[-9:]}"}]
            )
        }
        for text in texts
    ]


def dialogue_bank(folder: Path, model: Path) -> Path:
    """Two families of instructions; adapters hardly learn prompts, so the prior alone tells these apart."""
    routing = {"consolidation": {"router": {"prior": "gaussian"}}}
    settings = {"task": "sft", "training": {"max_length": 128}, **hurried(16), **routing}
    first = made(folder / "1", domain_job(folder / "a", model, asked("calm", 24), name="t1", **settings))
    start = {"bank": first, "selection": {"start": "t1"}}
    return made(folder / "2", domain_job(folder / "b", model, asked("red", 24), name="t2", **start, **settings))


def opened(model: Path, bank: Path, task: Task) -> Any:
    """The bank as evaluation, export and serving open it."""
    return load(ModelFiles(path=str(model), bank=str(bank)), task, device=torch.device("cpu")).model


def opened_classes(model: Path, bank: Path) -> ClassBank:
    """The bank of a classifier."""
    found = opened(model, bank, "classification")
    assert isinstance(found, ClassBank)
    return found


def opened_domains(model: Path, bank: Path, task: Task = "causal-lm") -> DomainBank:
    """The bank of a language model."""
    found = opened(model, bank, task)
    assert isinstance(found, DomainBank)
    return found


def classes(bank: ClassBank, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Texts as padded token ids and their mask."""
    found = bank.tokenizer(
        list(texts), padding=True, truncation=True, max_length=bank.manifest.max_length, return_tensors="pt"
    )
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def pooled(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A text's feature, written out: the mean of its tokens, then layer normalisation without weights."""
    weights = mask.unsqueeze(-1).float()
    mean = (hidden * weights).sum(1) / weights.sum(1)
    return torch.nn.functional.layer_norm(mean, mean.shape[-1:])


def prompts(bank: DomainBank, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a bank is asked, as right-padded token ids, and their lengths."""
    asked = [bank.asked(text) for text in texts]
    padded = torch.nn.utils.rnn.pad_sequence([ids[0] for ids, _ in asked], batch_first=True)
    return padded, torch.cat([length for _, length in asked])
