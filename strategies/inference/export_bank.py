"""Write a bank as a folder of its own, which answers with torch, transformers and peft and nothing else of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from strategies.contract import ModelFiles
from strategies.errors import Refused
from strategies.inference import bank as package
from strategies.inference.bank.domains import OPENING, read_of
from strategies.inference.bank.files import ADAPTERS, HEAD, MANIFEST, VECTORS
from strategies.inference.bank.standalone import MODEL
from strategies.inference.export import save_model
from strategies.inference.load import load, read_bank
from strategies.settings import Task

PACKAGE = "rekindle_bank"
USE = {
    "classes": 'bank.classify(["a text", "another"])  # [(class, probability), …]',
    "domains": 'bank.generate("a prompt", max_new_tokens=64)  # routed once; the adapter stays for the answer',
}
HOW = {
    "classes": f"""A text's feature is the {{pooling}} of the last hidden states over its tokens, standardised
(`torch.nn.functional.layer_norm` without weights). The linear head over all classes is `{HEAD}` (weight, bias); the
class means under the first adapter that the router begins with are `{VECTORS}`. Rows of both are in the order of
`labels` in `{MANIFEST}`, which also says whose adapter a class belongs to.""",
    "domains": f"""{{asked}}

What the router compares with is in `{VECTORS}`, how it decides in `{MANIFEST}`; a prompt that is far from every domain
goes to the base.""",
}
BODY = {"classes": "AutoModel", "domains": "AutoModelForCausalLM"}
README = """# A bank of adapters

A frozen base model, one low-rank adapter for each task it was taught, and a router that chooses among them.
Everything needed is in this folder; install `torch`, `transformers`, `peft` and `safetensors` for Python 3.11 or newer.

```python
import sys

folder = {folder!r}  # this folder
sys.path.insert(0, folder)
from {package} import load

bank = load(folder, device="cpu")
{use}
bank.changed()  # () as long as every adapter is what was stored
```

{how}

## Plain adapters

For a server that routes by itself, each folder under `adapters/` is an ordinary PEFT adapter of `base/`:

```python
from peft import PeftModel
from transformers import {body}

base = {body}.from_pretrained(f"{{folder}}/base")
model = PeftModel.from_pretrained(base, f"{{folder}}/adapters/{adapter}")
```

| adapter | answers for |
| --- | --- |
{rows}
"""


def export_bank(files: ModelFiles, task: Task, folder: Path, *, place: Path | None = None) -> None:
    """Write base, adapters, head, router and the code that reads them to ``folder``, with a README.

    Statistics that only training needs stay behind. ``place`` is where the folder will be found in the end.

    Raises:
        Refused: there is no bank, or it does not fit its base.
    """
    if files.bank is None:
        raise Refused("this version has no bank of adapters; export it as a model or an adapter")
    source = Path(files.bank)
    manifest = read_bank(source)
    labelled = files.model_copy(update={"labels": manifest.labels or files.labels})
    loaded = load(labelled, task, device=torch.device("cpu"), adapter=False)
    body = loaded.model.base_model if manifest.kind == "classes" else loaded.model
    folder.mkdir(parents=True)
    save_model(body, folder / MODEL, tokenizer=loaded.tokenizer, parent=files.path, dtype=loaded.published_dtype)
    shutil.copytree(source / ADAPTERS, folder / ADAPTERS)
    for name in (MANIFEST, VECTORS, HEAD):
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)
    write_reader(folder, manifest, place=str((place or folder).absolute()))


def write_reader(folder: Path, manifest: package.Manifest, *, place: str) -> None:
    """Put the code that reads a bank beside it, and a README that says how, for a folder found at ``place``."""
    (folder / PACKAGE).mkdir()
    for file in sorted(Path(str(package.__file__)).parent.glob("*.py")):
        shutil.copyfile(file, folder / PACKAGE / file.name)
    (folder / "README.md").write_text(_readme(manifest, place))


def _how_asked(manifest: package.Manifest) -> str:
    if manifest.form == "text":
        return f"""A prompt is a text to go on from; `generate` puts before it what opens each document, as in training.
A text is routed once, by its first {OPENING} tokens, a shorter one by what it has, which says less; of a text that is
scored, each window by its own."""
    template = "in the chat template of `base/`, up to where the answer begins"
    return f"""`generate` takes one user's message, or a list of messages (`{{"role": "user", "content": "…"}}`), and
writes them {template if manifest.form == "template" else "one a line"}, as in training. They are routed once, by their
last {read_of(manifest.form, manifest.max_length)} tokens."""


def _answers_for(manifest: package.Manifest, at: int) -> str:
    if manifest.kind == "domains":
        return f"what is like {', '.join(manifest.adapters[at].sources) or 'its domain'}"
    labels = [label for label, owner in zip(manifest.labels, manifest.owners, strict=True) if owner == at]
    return ", ".join(labels) or "no class: later tasks took over all of its"


def _readme(manifest: package.Manifest, place: str) -> str:
    rows = [f"| {entry.name} | {_answers_for(manifest, at)} |" for at, entry in enumerate(manifest.adapters)]
    return README.format(
        folder=place,
        package=PACKAGE,
        use=USE[manifest.kind],
        how=HOW[manifest.kind].format(
            pooling={"cls": "first", "last": "last"}.get(manifest.pooling, "mean"),
            asked=_how_asked(manifest),
        ),
        body=BODY[manifest.kind],
        adapter=manifest.names[-1],
        rows="\n".join(rows),
    )
