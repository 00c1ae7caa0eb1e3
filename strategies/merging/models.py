"""Models on disk, read lazily one tensor at a time: Hugging Face folders, and PEFT LoRA adapters on top of one."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from strategies.contract import ModelFiles
from strategies.errors import Refused
from strategies.inference.checks import check_folder
from strategies.inference.load import adapter_labels, unnamed
from strategies.inference.names import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    PEFT_PREFIX,
    WEIGHTS,
    WEIGHTS_INDEX,
    scale_of,
)
from strategies.merging.arithmetic import added
from strategies.merging.low_rank import LowRank
from strategies.settings import Json

TIED_HEAD = "lm_head.weight"
DTYPES = {
    "F64": torch.float64, "I64": torch.int64, "F32": torch.float32, "I32": torch.int32, "BF16": torch.bfloat16,
    "F16": torch.float16, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
"""Names of the safetensors format."""
UNKNOWN = ("use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "megatron_config", "trainable_token_indices")
"""LoRA variants whose change is not ``scale * B @ A`` with one scale."""


class Shards:
    """Tensors of safetensors files, by name."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self._folder = folder
        self._open = {file: _opened(folder / file) for file in files}
        self._file = {str(name): file for file, opened in self._open.items() for name in opened.keys()}  # noqa: SIM118
        self.files = tuple(folder / file for file in files)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._file))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._open[self._file[name]].get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        return DTYPES[self._open[self._file[name]].get_slice(name).get_dtype()]

    def raw(self, name: str) -> Tensor:
        """The tensor as it is stored."""
        return cast(Tensor, self._open[self._file[name]].get_tensor(name))


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise Refused(f"{path} cannot be read ({error}); restore it from a backup") from error


class Folder:
    """A Hugging Face folder. A name is also found with or without its first part (``transformer.h.0`` and ``h.0``)."""

    def __init__(self, path: Path, *, trust_remote_code: bool = False) -> None:
        if not path.is_dir():
            raise Refused(f"{path} is not a folder; only models on disk can be merged")
        check_folder(path, trust_remote_code=trust_remote_code)
        self.path = path
        self.trust_remote_code = trust_remote_code
        self.config: Json = json.loads((path / "config.json").read_bytes())
        self.shards = Shards(path, _weight_files(path))
        self._known = set(self.shards.names)
        self._heads = sorted({name.partition(".")[0] for name in self._known})
        if self.config.get("tie_word_embeddings") and len(self._known) > 1:
            self._known.discard(TIED_HEAD)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._known))

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that its bytes come from."""
        return self.shards.files

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes in head order; empty for a head that was never trained."""
        found = self.config.get("id2label") or {}
        labels = tuple(str(found[key]) for key in sorted(found, key=int))
        return () if unnamed(labels) else labels

    def replaces(self, name: str) -> bool:
        """Whether an adapter holds this tensor as a whole: there is none."""
        return False

    def _stored(self, name: str) -> str | None:
        spellings = (name, name.partition(".")[2], *(f"{head}.{name}" for head in self._heads))
        return next((spelling for spelling in spellings if spelling in self._known), None)

    def has(self, name: str) -> bool:
        return self._stored(name) is not None

    def raw(self, name: str) -> Tensor:
        """The tensor as it is stored."""
        return self.shards.raw(self._found(name))

    def shape(self, name: str) -> tuple[int, ...]:
        return self.shards.shape(self._found(name))

    def dtype(self, name: str) -> torch.dtype:
        return self.shards.dtype(self._found(name))

    def tensor(self, name: str) -> Tensor:
        """The tensor in float32."""
        return self.raw(name).float()

    def _found(self, name: str) -> str:
        stored = self._stored(name)
        if stored is None:
            raise Refused(f"{self.path} has no tensor {name}; merge models of one architecture")
        return stored


def _weight_files(path: Path) -> list[str]:
    if (path / WEIGHTS_INDEX).exists():
        return sorted(set(json.loads((path / WEIGHTS_INDEX).read_bytes())["weight_map"].values()))
    if (path / WEIGHTS).exists():
        return [WEIGHTS]
    return sorted(file.name for file in path.glob("*.safetensors"))


class Adapted:
    """A LoRA adapter on a folder; its tensors are those of the full model, ``W + scale * B @ A``.

    Tensors that the adapter replaces as a whole (a classification head) are read from it.
    """

    def __init__(self, base: Folder, adapter: Path) -> None:
        check_folder(adapter, trust_remote_code=False)
        self.base = base
        self.adapter = adapter
        self.adapter_config: Json = json.loads((adapter / ADAPTER_CONFIG).read_bytes())
        _check_plain(self.adapter_config, adapter)
        self._shards = Shards(adapter, [ADAPTER_WEIGHTS])
        keys = [key for key in self._shards.names if key.startswith(PEFT_PREFIX)]
        suffix = ".lora_A.weight"
        self.modules = {key.removeprefix(PEFT_PREFIX).removesuffix(suffix) for key in keys if key.endswith(suffix)}
        self.replaced = {key.removeprefix(PEFT_PREFIX): key for key in keys if ".lora_" not in key}
        self._check_keys()

    @property
    def config(self) -> Json:
        return self.base.config

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes of the head that the adapter carries."""
        return adapter_labels(self.adapter) or self.base.labels

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that its bytes come from."""
        return (*self.base.files, *self._shards.files)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted({*self.base.names, *(name for name in self.replaced if not self.base.has(name))}))

    @property
    def rank(self) -> int:
        return int(self.adapter_config["r"])

    @property
    def scale(self) -> float:
        """What ``B @ A`` is multiplied by."""
        config = self.adapter_config
        return scale_of(self.rank, config["lora_alpha"], rslora=bool(config.get("use_rslora")))

    @property
    def transposed(self) -> bool:
        """Whether weights are stored (in, out), as GPT-2 has them."""
        return bool(self.adapter_config.get("fan_in_fan_out"))

    def has(self, name: str) -> bool:
        return self.base.has(name) or self._replacement(name) is not None

    def shape(self, name: str) -> tuple[int, ...]:
        key = self._replacement(name)
        return self._shards.shape(key) if key else self.base.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        key = self._replacement(name)
        return self._shards.dtype(key) if key else self.base.dtype(name)

    def raw(self, name: str) -> Tensor:
        """A tensor that the adapter does not change, as it is stored."""
        return self.base.raw(name)

    def tensor(self, name: str) -> Tensor:
        """The tensor of the full model in float32."""
        key = self._replacement(name)
        if key:
            return self._shards.raw(key).float()
        change = self.change(name)
        return self.base.tensor(name) if change is None else added(self.base.tensor(name), change)

    def change(self, name: str) -> Tensor | None:
        """What the adapter adds to a weight of the folder, in the weight's own layout; None: nothing."""
        module = self._module(name)
        if module is None:
            return None
        found = self.factors(module).dense()
        return found.T if self.transposed else found

    def factors(self, module: str) -> LowRank:
        """The change of a module as a product, with the scale in ``b``."""
        a, b = (one.float() for one in self.stored(module).values())
        return LowRank(b=b * self.scale, a=a)

    def stored(self, module: str) -> dict[str, Tensor]:
        """A and B of a module as they are stored, by key."""
        return {key: self._shards.raw(key) for key in factor_keys(module)}

    def as_stored(self, module: str, change: LowRank) -> dict[str, Tensor]:
        """A and B of a module as this adapter would store them: what they are multiplied by comes off both alike."""
        root = math.sqrt(self.scale)
        return dict(zip(factor_keys(module), (change.a / root, change.b / root), strict=True))

    def replaces(self, name: str) -> bool:
        """Whether the adapter holds this tensor as a whole."""
        return self._replacement(name) is not None

    def touches(self, name: str) -> bool:
        """Whether the adapter adapts or replaces a tensor."""
        return self.replaces(name) or self._module(name) is not None

    def _module(self, name: str) -> str | None:
        module = name.removesuffix(".weight")
        return spelled(module, self.modules) if module != name else None

    def _replacement(self, name: str) -> str | None:
        found = spelled(name, self.replaced.keys())
        return self.replaced[found] if found else None

    def _check_keys(self) -> None:
        known = {key for module in self.modules for key in factor_keys(module)}
        for key in self._shards.names:
            if key not in known and key not in self.replaced.values():
                raise Refused(f"{self.adapter} has the tensor {key}, which is not of a plain LoRA adapter")
        for module in self.modules:
            if not self.base.has(f"{module}.weight"):
                raise Refused(f"{self.adapter} adapts {module}, which {self.base.path} does not have")


def factor_keys(module: str) -> tuple[str, str]:
    """What a module's A and B are called in an adapter's file."""
    return f"{PEFT_PREFIX}{module}.lora_A.weight", f"{PEFT_PREFIX}{module}.lora_B.weight"


def spelled(name: str, known: Collection[str]) -> str | None:
    """``name`` as it stands in ``known``: with or without its first part."""
    if name in known or name.partition(".")[2] in known:
        return name if name in known else name.partition(".")[2]
    return next((other for other in sorted(known) if other.partition(".")[2] == name), None)


def _check_plain(config: Json, adapter: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise Refused(f"{adapter} is no LoRA adapter; merge full models instead")
    unknown = [key for key in UNKNOWN if config.get(key)]
    if unknown or config.get("bias", "none") != "none":
        raise Refused(f"{adapter} uses {', '.join(unknown) or 'bias'}; export it as a full model and merge that")


class Grown:
    """A classifier whose head lacks the last classes of others: it is read as if it had their rows for them.

    Where several have a class, their mean row is taken.

    Raises:
        Refused: the others' classes do not begin with its own.
    """

    def __init__(self, inner: Folder | Adapted, others: Sequence[Folder | Adapted]) -> None:
        self.like = max(others, key=lambda one: len(one.labels))
        if not inner.labels or self.like.labels[: len(inner.labels)] != inner.labels:
            raise Refused(
                f"classes {', '.join(self.like.labels) or '-'} do not begin with {', '.join(inner.labels) or '-'}; "
                "merge classifiers whose classes are the same in the same order, but for new ones at the end"
            )
        self.inner = inner
        self.others = others
        self.labels = self.like.labels
        self.config = inner.config
        self.names = inner.names
        self.files = inner.files
        self.has = inner.has
        self.dtype = inner.dtype
        self.raw = inner.raw

    def shape(self, name: str) -> tuple[int, ...]:
        return self.like.shape(name) if self._short(name) else self.inner.shape(name)

    def tensor(self, name: str) -> Tensor:
        """The tensor in float32, grown if it is the head's."""
        tensor = self.inner.tensor(name)
        return torch.cat([tensor, self._rows(name)[len(tensor) :]]) if self._short(name) else tensor

    def replaces(self, name: str) -> bool:
        """Whether change counts as a whole."""
        return self._short(name) or self.inner.replaces(name)

    def _rows(self, name: str) -> Tensor:
        """Rows of all classes, each the mean of those that the others have."""
        total = torch.zeros(self.like.shape(name))
        counts = torch.zeros([len(total), *(1 for _ in total.shape[1:])])
        for other in self.others:
            rows = other.tensor(name)
            total[: len(rows)] += rows
            counts[: len(rows)] += 1
        return total / counts

    def _short(self, name: str) -> bool:
        ours, theirs = self.inner.shape(name), self.like.shape(name)
        rows = (len(self.inner.labels), len(self.like.labels))
        return ours[1:] == theirs[1:] and (ours[:1], theirs[:1]) == (rows[:1], rows[1:]) and rows[0] < rows[1]


Model = Folder | Adapted | Grown


def open_model(files: ModelFiles) -> Folder | Adapted:
    """A model's files, checked and ready to be read tensor by tensor.

    Raises:
        Refused: it is a bank, whose adapters answer different requests.
    """
    if files.bank is not None:
        raise Refused("a bank of adapters has no weights of its own to merge; merge versions of other strategies")
    folder = Folder(Path(files.path), trust_remote_code=files.trust_remote_code)
    return Adapted(folder, Path(files.adapter)) if files.adapter else folder


def inner_of(model: Model) -> Folder | Adapted:
    """A model as it is stored, without what it reads of others."""
    return model.inner if isinstance(model, Grown) else model


def folder_of(model: Model) -> Folder:
    """The Hugging Face folder at the bottom of a model."""
    inner = inner_of(model)
    return inner.base if isinstance(inner, Adapted) else inner


def adapter_of(model: Model) -> Adapted | None:
    """The adapter of a model, if it has one."""
    inner = inner_of(model)
    return inner if isinstance(inner, Adapted) else None


def change_between(model: Model, base: Model, name: str) -> Tensor:
    """``model - base`` in float32. Adapters on one folder are compared by themselves, without the weight's rounding."""
    whole = model.replaces(name) or base.replaces(name)
    if not whole and folder_of(model).path.resolve() == folder_of(base).path.resolve():
        ours, theirs = (_change(one, name) for one in (model, base))
        if ours is None and theirs is None:
            return torch.zeros(base.shape(name))
        return _minus(ours, theirs)
    return model.tensor(name) - base.tensor(name)


def _minus(ours: Tensor | None, theirs: Tensor | None) -> Tensor:
    if theirs is None:
        assert ours is not None
        return ours
    return -theirs if ours is None else ours - theirs


def _change(model: Model, name: str) -> Tensor | None:
    adapter = adapter_of(model)
    return adapter.change(name) if adapter else None
