"""The parameter table of a model: names, shapes and owners of its tensors, as its plain base would have them."""

from __future__ import annotations

from torch import nn

from strategies.contract import Parameter
from strategies.inference.names import PEFT_PREFIX

_RENAMED = ((".base_layer.", "."), (".modules_to_save.default.", "."))


def parameter_table(model: nn.Module) -> tuple[Parameter, ...]:
    """Parameters in module order, each tied one once; an adapter's own tensors and its wrapper's names are left out."""
    names: dict[int, list[str]] = {}
    found: dict[int, tuple[tuple[int, ...], str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        plain = plain_name(name)
        if plain is not None:
            names.setdefault(id(parameter), []).append(plain)
            owner = model.get_submodule(name.rpartition(".")[0])
            found.setdefault(id(parameter), (tuple(parameter.shape), _kind(owner)))
    return tuple(
        Parameter(names=tuple(names[key]), shape=shape, module=module) for key, (shape, module) in found.items()
    )


def _kind(owner: nn.Module) -> str:
    """The name of a module's class; of an architecture's own linear layer (Falcon's) that of torch's."""
    return nn.Linear.__name__ if isinstance(owner, nn.Linear) else type(owner).__name__


def plain_name(name: str) -> str | None:
    """A tensor's name without PEFT's wrapper; None for what the plain model does not have."""
    if ".lora_" in name or ".original_module." in name:
        return None
    plain = name.removeprefix(PEFT_PREFIX)
    for wrapped, bare in _RENAMED:
        plain = plain.replace(wrapped, bare)
    return plain
