"""Tiny models, made once a test session."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from strategies.agent.requests import DomainFile
from tests import models
from tests.models import texts

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.llama(tmp_path_factory.mktemp("chat"), chat=True)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.bert(tmp_path_factory.mktemp("bert"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Peft still asks transformers by a name that transformers has deprecated; nothing of ours can change that."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"))


@pytest.fixture
def domains(tmp_path: Path) -> tuple[DomainFile, ...]:
    """Two files that the mixing agent's commands mix, of which the second is what training is for."""
    (tmp_path / "old.txt").write_text("\n\n".join(texts(30)))
    lines = (json.dumps({"text": text}) for text in texts(30, start=100))
    (tmp_path / "new.jsonl").write_text("\n".join(lines))
    return (
        DomainFile(name="old", path=str(tmp_path / "old.txt")),
        DomainFile(name="new", path=str(tmp_path / "new.jsonl"), target=True),
    )
