"""Which parameters move: puts a plan's selection on a model and groups what moves for the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from strategies.errors import BadState, Refused
from strategies.inference.checks import check_folder
from strategies.inference.load import grow_head, head_of
from strategies.inference.names import ADAPTER_WEIGHTS, PEFT_PREFIX
from strategies.parts import FullSelection, HalfSelection, LoraSelection, Schedule
from strategies.parts import Selection as SelectionSettings
from strategies.settings import LoraSettings, Task, TrainingSettings
from strategies.training.decay import decay_groups
from strategies.training.halves import freeze_adapters, freeze_half
from strategies.training.lora import lora_config

ADAPTER = "default"


def prepare(
    model: Any, selection: SelectionSettings, *, task: Task, adapter: Path | None, labels: tuple[str, ...], seed: int
) -> Any:
    """``model`` with what moves made trainable and the rest frozen.

    full, half: the parent's adapter, if any, is merged in first. lora, half with lora: the parent's adapter goes on,
    else a fresh one starts. A classification head grows to ``labels`` and always moves.
    """
    if isinstance(selection, FullSelection) or (isinstance(selection, HalfSelection) and selection.lora is None):
        return _plain(model, selection, task=task, adapter=adapter, labels=labels, seed=seed)
    lora = _lora_of(selection)
    model = _adapted(model, lora, task=task, adapter=adapter, labels=labels, seed=seed)
    if isinstance(selection, HalfSelection):
        freeze_adapters(model, selection)
    return model


def is_adapted(model: Any) -> bool:
    """Whether what moves is an adapter on the model, so that the answer is an adapter too."""
    return isinstance(model, peft.PeftModel)


def _plain(
    model: Any,
    selection: FullSelection | HalfSelection,
    *,
    task: Task,
    adapter: Path | None,
    labels: tuple[str, ...],
    seed: int,
) -> Any:
    model = _merged(model, adapter) if adapter else model
    if task == "classification":
        grow_head(model, labels, seed=seed)
    model.requires_grad_(True)
    if isinstance(selection, HalfSelection):
        freeze_half(model, selection)
    return model


def _lora_of(selection: SelectionSettings) -> LoraSettings:
    if isinstance(selection, LoraSelection | HalfSelection) and selection.lora is not None:
        return selection.lora
    raise Refused(f"selection {selection.kind} is not known to this training job; choose another strategy")


def _adapted(
    model: Any, lora: LoraSettings, *, task: Task, adapter: Path | None, labels: tuple[str, ...], seed: int
) -> Any:
    """``model`` with the parent's adapter, or with a fresh one of ``lora``."""
    tensors = _adapter_tensors(adapter) if adapter else {}
    if task == "classification":
        _put_head(model, tensors)
        grow_head(model, labels, seed=seed)
        name, head = head_of(model)
        if adapter:
            tensors |= {f"{PEFT_PREFIX}{name}.{key}": tensor for key, tensor in head.state_dict().items()}
    return _with_adapter(model, lora, task=task, adapter=adapter, tensors=tensors)


def moving(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name, each tied one once."""
    found = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not found:
        raise Refused("no parameter would move; check lora.target_modules")
    return found


def counts(model: nn.Module, moved: Mapping[str, nn.Parameter]) -> dict[str, int]:
    """How many numbers the model has and how many of them are in ``moved``."""
    sizes = [sum(parameter.numel() for parameter in some) for some in (model.parameters(), moved.values())]
    return dict(zip(("parameters", "trainable"), sizes, strict=True))


def optimizer_for(
    parameters: Mapping[str, nn.Parameter], schedule: Schedule, settings: TrainingSettings
) -> torch.optim.AdamW:
    """Fused AdamW; weight decay acts on matrices only. Each group keeps its ``base_lr``."""
    groups = decay_groups(parameters.values(), settings.weight_decay)
    return torch.optim.AdamW(
        [{**group, "lr": schedule.lr, "base_lr": schedule.lr} for group in groups],
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=True,
    )


def moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimizer's state by parameter name; tensors are the optimizer's own, not copies."""
    return {
        f"{name}.{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def put_moments(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Continue from :func:`moments`; a parameter that grew or has no moments is an error."""
    for name, parameter in parameters.items():
        state = {key: tensors.get(f"{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
        average = state["exp_avg"]
        if any(value is None for value in state.values()) or average is None or average.shape != parameter.shape:
            raise BadState(f"the optimizer state does not fit parameter {name}; start without it")
        optimizer.state[parameter] = {
            key: value.to(parameter.device).clone() for key, value in state.items() if value is not None
        }


def _merged(model: Any, adapter: Path) -> Any:
    from strategies.inference.load import attach

    return attach(model, adapter).merge_and_unload()


def _adapter_tensors(adapter: Path) -> dict[str, Tensor]:
    check_folder(adapter, trust_remote_code=False)
    return dict(load_file(adapter / ADAPTER_WEIGHTS))


def _put_head(model: Any, tensors: dict[str, Tensor]) -> None:
    """Move the head that an adapter carries onto the model, so that it can grow there."""
    name, head = head_of(model)
    stored = {key: tensors.pop(key) for key in list(tensors) if key.startswith(f"{PEFT_PREFIX}{name}.")}
    for key, tensor in stored.items():
        with torch.no_grad():
            head.get_parameter(key.rpartition(".")[2]).copy_(tensor)


def _with_adapter(
    model: Any, settings: LoraSettings, *, task: Task, adapter: Path | None, tensors: Mapping[str, Tensor]
) -> Any:
    if adapter is not None:
        config = peft.PeftConfig.from_pretrained(str(adapter))
        config.inference_mode = False
        _check_same_shape(config, settings)
        config.lora_dropout = settings.lora_dropout
    else:
        config = _fresh(model, settings, task)
    wrapped = peft.get_peft_model(model, config, adapter_name=ADAPTER)
    if adapter is not None:
        missing = peft.set_peft_model_state_dict(wrapped, dict(tensors), adapter_name=ADAPTER)
        if missing.unexpected_keys:
            raise BadState(f"the parent's adapter has tensors that do not fit, such as {missing.unexpected_keys[0]}")
    return wrapped


def _fresh(model: Any, settings: LoraSettings, task: Task) -> Any:
    if task != "classification":
        return lora_config(model, settings, task_type="CAUSAL_LM")
    head = head_of(model)[0].rpartition(".")[2]
    return lora_config(model, settings, task_type="SEQ_CLS", modules_to_save=[head])


def _check_same_shape(config: Any, settings: LoraSettings) -> None:
    for name in ("r", "lora_alpha", "use_rslora"):
        stored, wanted = getattr(config, name), getattr(settings, name)
        if stored != wanted:
            raise Refused(
                f"the parent's adapter has {name} {stored} but the settings say {wanted}; "
                "keep the parent's value, or train in full (tuner: full) once to merge it"
            )
