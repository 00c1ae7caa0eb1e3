"""An exported bank answers without this project, and its adapters are ordinary ones."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from strategies.contract import ModelFiles
from strategies.errors import Refused
from strategies.inference.bank.files import read_manifest
from strategies.inference.export import export_merged
from strategies.inference.export_bank import _answers_for, export_bank
from tests import models
from tests.training import banks

TEXTS = [row["text"] for row in [*banks.told(("calm", "angry"), 4), *banks.told(("red", "blue"), 4)]]


@pytest.fixture(scope="module")
def classes_at(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    return banks.class_bank(tmp_path_factory.mktemp("classes"), bert)


def elsewhere(folder: Path, lines: str) -> Any:
    """What a process without this project prints as JSON, with the README's own first lines."""
    readme = (folder / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{code}\n{lines}\nassert 'strategies' not in sys.modules"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_an_exported_bank_of_classes_answers_the_same_without_this_project(
    tmp_path: Path, bert: Path, classes_at: Path
) -> None:
    export_bank(ModelFiles(path=str(bert), bank=str(classes_at)), "classification", tmp_path / "out")
    found = elsewhere(tmp_path / "out", f"import json; print(json.dumps(bank.classify({TEXTS!r})))")
    wanted = banks.opened_classes(bert, classes_at).classify(TEXTS)
    assert [label for label, _ in found] == [label for label, _ in wanted]
    assert [sure for _, sure in found] == pytest.approx([sure for _, sure in wanted], abs=1e-5)
    assert not list((tmp_path / "out").rglob("statistics*"))
    told = (tmp_path / "out" / "README.md").read_text()
    assert all(f"| {name} | {classes} |" in told for name, classes in (("t1", "calm, angry"), ("t2", "red, blue")))


def test_one_text_alone_is_no_list_of_texts(bert: Path, classes_at: Path) -> None:
    with pytest.raises(TypeError, match="put the one text into a list"):
        banks.opened_classes(bert, classes_at).classify("calm")


def test_an_adapter_without_a_class_says_so(classes_at: Path) -> None:
    manifest = read_manifest(classes_at)
    taken_over = dataclasses.replace(manifest, owners=(1,) * len(manifest.owners))
    assert [_answers_for(taken_over, at) for at in (0, 1)] == [
        "no class: later tasks took over all of its",
        ", ".join(manifest.labels),
    ]


def test_an_exported_bank_of_domains_answers_the_same_without_this_project(tmp_path: Path, llama: Path) -> None:
    bank_at = banks.domain_bank(tmp_path / "bank", llama)
    export_bank(ModelFiles(path=str(llama), bank=str(bank_at)), "causal-lm", tmp_path / "out")
    prompt = banks.spoken("red", 1)[0]["text"]
    say = f"import json; print(json.dumps(bank.generate({prompt!r}, max_new_tokens=5, do_sample=False)))"
    wanted = banks.opened_domains(llama, bank_at).generate(prompt, max_new_tokens=5, do_sample=False)
    assert elsewhere(tmp_path / "out", say) == wanted
    assert "| t1 | what is like batch-1 |" in (tmp_path / "out" / "README.md").read_text()


@torch.inference_mode()
def test_every_exported_adapter_is_an_ordinary_one(tmp_path: Path, bert: Path, classes_at: Path) -> None:
    export_bank(ModelFiles(path=str(bert), bank=str(classes_at)), "classification", tmp_path / "out")
    bank = banks.opened_classes(bert, classes_at)
    inputs = banks.classes(bank, TEXTS)
    for name in ("t1", "t2"):
        body = transformers.AutoModel.from_pretrained(tmp_path / "out" / "base")
        plain = peft.PeftModel.from_pretrained(body, str(tmp_path / "out" / "adapters" / name)).eval()
        hidden = plain(**inputs).last_hidden_state
        torch.testing.assert_close(
            banks.pooled(hidden, inputs["attention_mask"]), bank.features(inputs, [name] * len(TEXTS))
        )


@pytest.mark.parametrize("place", ["exported", "published"])
def test_a_body_may_gain_a_pooler_that_the_classifier_lacks(tmp_path: Path, place: str) -> None:
    """The class that reads a body alone may add a pooler; no feature reads it, so the body is the same."""
    model = models.small(tmp_path / "model", "roberta")
    bank_at = banks.class_bank(tmp_path / "bank", model)
    if place == "exported":
        export_bank(ModelFiles(path=str(model), bank=str(bank_at)), "classification", tmp_path / "out")
    else:
        shutil.copytree(bank_at, tmp_path / "out")
        shutil.copytree(model, tmp_path / "out" / "base")
    wanted = banks.opened_classes(model, bank_at).classify(TEXTS)
    found = elsewhere(tmp_path / "out", f"import json; print(json.dumps(bank.classify({TEXTS!r})))")
    assert [tuple(one) for one in found] == wanted


def test_a_bank_has_no_merged_form(tmp_path: Path, bert: Path, classes_at: Path) -> None:
    with pytest.raises(Refused, match="export the bank"):
        export_merged(ModelFiles(path=str(bert), bank=str(classes_at)), "classification", tmp_path / "out")


def test_a_version_without_a_bank_is_not_exported_as_one(tmp_path: Path, bert: Path) -> None:
    with pytest.raises(Refused, match="no bank"):
        export_bank(ModelFiles(path=str(bert)), "classification", tmp_path / "out")
