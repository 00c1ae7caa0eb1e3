"""One ``load`` for training, evaluation, export and serving: a Hugging Face folder, perhaps with a PEFT adapter."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import nn

from strategies.contract import ModelFiles
from strategies.errors import Refused
from strategies.inference.bank import BadBank, Manifest, open_bank, read_manifest
from strategies.inference.bank.files import ADAPTERS
from strategies.inference.checks import check_folder
from strategies.inference.names import LABELS_FILE, WEIGHT_FILES
from strategies.settings import Task

HEADS = ("classifier", "score", "out_proj")
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model on its device, its tokenizer and, for classification, its classes in head order."""

    model: Any
    tokenizer: Any
    labels: tuple[str, ...] = ()
    published_dtype: torch.dtype = torch.float32
    """The dtype that most weights are stored in, whatever the configuration says; they are computed with in float32."""


def load(files: ModelFiles, task: Task, *, device: torch.device, adapter: bool = True, seed: int = 0) -> Loaded:
    """Read a model in float32, in evaluation mode; its adapter, if there is one, stays an adapter.

    A classifier has the classes it was stored with; one that was never trained (classes called ``LABEL_0`` …) gets a
    new head for ``files.labels`` under ``seed``. ``adapter=False`` leaves the adapter out, for who attaches it later.
    A bank of adapters answers as one model that routes each row by itself.
    """
    folder = Path(files.path)
    local = folder.is_dir()
    if local:
        check_folder(folder, trust_remote_code=files.trust_remote_code)
    options: dict[str, Any] = {"trust_remote_code": files.trust_remote_code, "local_files_only": local}
    tokenizer = load_tokenizer(files)
    stored = transformers.AutoConfig.from_pretrained(files.path, **options)
    labels: tuple[str, ...] = ()
    if task == "classification":
        labels = own_labels(files, stored)
        model = _classifier(files.path, stored, labels, options=options, seed=seed)
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
    else:
        model = _read(transformers.AutoModelForCausalLM, files.path, options=options)
    if adapter and files.adapter is not None:
        model = attach(model, Path(files.adapter))
    if adapter and files.bank is not None:
        model = _banked(model, Path(files.bank), tokenizer)
    model.to(device)
    model.eval()
    return Loaded(
        model=model, tokenizer=tokenizer, labels=labels, published_dtype=stored_dtype(folder) or _named_dtype(stored)
    )


def attach(model: Any, adapter: Path) -> Any:
    """Put the PEFT adapter of folder ``adapter`` on ``model``."""
    import peft

    check_folder(adapter, trust_remote_code=False)
    return peft.PeftModel.from_pretrained(model, str(adapter))


def _banked(model: Any, folder: Path, tokenizer: Any) -> Any:
    """``model`` under the bank of ``folder``; a classifier's own head stays behind."""
    manifest = read_bank(folder)
    try:
        bank = open_bank(model.base_model if manifest.kind == "classes" else model, folder)
    except BadBank as error:
        raise Refused(str(error)) from error
    bank.tokenizer = tokenizer
    return bank


def read_bank(folder: Path) -> Manifest:
    """The manifest of a bank whose adapters are safe to read."""
    try:
        manifest = read_manifest(folder)
    except BadBank as error:
        raise Refused(str(error)) from error
    for name in manifest.names:
        check_folder(folder / ADAPTERS / name, trust_remote_code=False)
    return manifest


def load_tokenizer(files: ModelFiles) -> Any:
    """The tokenizer of a model; one without a padding token pads with its end token."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        files.path, trust_remote_code=files.trust_remote_code, local_files_only=Path(files.path).is_dir()
    )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise Refused(f"the tokenizer of {files.path} has neither a padding nor an end token; add one")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def adapter_labels(adapter: Path) -> tuple[str, ...]:
    """Classes of the head that is stored with an adapter; empty if it has none."""
    path = adapter / LABELS_FILE
    return tuple(json.loads(path.read_bytes())["labels"]) if path.exists() else ()


def head_of(model: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of a classifier's head: its own child, or the last linear layer that is called like one."""
    # A body's own layers may be called so too: attention of OPT and BART has an out_proj.
    for name, module in [*model.named_children(), *reversed(list(model.named_modules()))]:
        if name.rpartition(".")[2] in HEADS and isinstance(module, nn.Linear):
            return name, module
    raise Refused(f"{type(model).__name__} has no linear head called {' or '.join(HEADS)}; use another architecture")


def grow_head(model: Any, labels: Sequence[str], *, seed: int) -> None:
    """Give the head one row a label: the rows there are stay as they are, new ones are small normals under ``seed``."""
    name, old = head_of(model)
    if len(labels) < old.out_features:
        raise Refused(f"the head has {old.out_features} rows but only {len(labels)} labels are named; name all of them")
    if len(labels) > old.out_features:
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], _grown(old, len(labels), seed=seed, std=_std(model)))
    name_labels(model, labels)


def name_labels(model: Any, labels: Sequence[str]) -> None:
    """Write the classes into the model's configuration."""
    model.config.num_labels = len(labels)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    model.config.problem_type = None
    model.num_labels = len(labels)


def _grown(old: nn.Linear, rows: int, *, seed: int, std: float) -> nn.Linear:
    new = nn.Linear(old.in_features, rows, bias=old.bias is not None, dtype=old.weight.dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        new.weight.normal_(0.0, std, generator=generator)
        new.weight[: old.out_features] = old.weight
        if old.bias is not None:
            new.bias.zero_()
            new.bias[: old.out_features] = old.bias
    return new


def _std(model: Any) -> float:
    return float(getattr(model.config, "initializer_range", None) or 0.02)


def own_labels(files: ModelFiles, config: Any) -> tuple[str, ...]:
    """Classes that the model was trained on, in head order; ``files.labels`` if it was trained on none."""
    kept = adapter_labels(Path(files.adapter)) if files.adapter else ()
    kept = read_bank(Path(files.bank)).labels if files.bank else kept
    found: dict[int, str] = config.id2label or {}
    stored = tuple(str(found[index]) for index in sorted(found))
    return kept or (tuple(files.labels) or stored if unnamed(stored) else stored)


def unnamed(labels: tuple[str, ...]) -> bool:
    """Whether classes are called as transformers calls those of a head that was never trained."""
    return labels == tuple(f"LABEL_{index}" for index in range(len(labels)))


def _classifier(path: str, config: Any, labels: tuple[str, ...], *, options: dict[str, Any], seed: int) -> Any:
    if len(labels) < 2:
        raise Refused("classification needs at least two classes; they are trained once documents of a second one come")
    torch.manual_seed(seed)
    sized = {"num_labels": len(labels), "ignore_mismatched_sizes": True} if len(labels) != config.num_labels else {}
    model = _read(transformers.AutoModelForSequenceClassification, path, options={**options, **sized})
    name_labels(model, labels)
    return model


def _read(kind: Any, path: str, *, options: dict[str, Any]) -> Any:
    try:
        return kind.from_pretrained(path, use_safetensors=True, dtype=torch.float32, **options)
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error


def stored_dtype(folder: Path) -> torch.dtype | None:
    """The floating-point dtype of most numbers in a folder's weights; None where there is no such file."""
    sizes: Counter[torch.dtype] = Counter()
    for file in sorted(folder.glob(WEIGHT_FILES)):
        with safe_open(file, "pt") as tensors:
            found = [(FLOATS.get(one.get_dtype()), one.get_shape()) for one in map(tensors.get_slice, tensors.keys())]
            sizes.update({dtype: math.prod(shape) for dtype, shape in found if dtype is not None})
    return sizes.most_common(1)[0][0] if sizes else None


def _named_dtype(config: Any) -> torch.dtype:
    named = getattr(config, "dtype", None)
    return named if isinstance(named, torch.dtype) else torch.float32
