"""What a user sets about training. Names are those of transformers' TrainingArguments and peft's LoraConfig."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from strategies.settings.record import Closed

Task = Literal["causal-lm", "sft", "classification"]
MOST_STEPS = 10**9
MOST_ROWS = 2**20
"""Of one step."""
MOST_TOKENS = 2**24
"""Of one row; no context is as long."""


class LoraSettings(Closed):
    """Low-rank adapters (Hu et al. 2021), names as in peft's LoraConfig."""

    r: int = Field(8, ge=1, le=1024, description="rank of the update")
    lora_alpha: int = Field(16, ge=1, le=2**20, description="the update is scaled by lora_alpha / r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the down-projection")
    target_modules: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description="names of the modules that carry an adapter"
    )
    use_rslora: bool = Field(False, description="scale by lora_alpha / sqrt(r) instead")


class TrainingSettings(Closed):
    """How a model is trained, whatever the strategy."""

    tuner: Literal["full", "lora"] = Field("full", description="train all parameters, or low-rank adapters")
    lora: LoraSettings = Field(default_factory=LoraSettings, description="shape of the adapters")
    max_length: int = Field(
        256,
        ge=8,
        le=MOST_TOKENS,
        description="tokens in a row: texts fill rows of this length, longer sft and classification rows are cut",
    )
    packing: bool = Field(
        True, description="put several sft examples into a row, if a test shows that they cannot see each other"
    )
    num_train_epochs: float = Field(1.0, gt=0, le=1e6, description="passes over the new data")
    max_steps: int | None = Field(None, ge=1, le=MOST_STEPS, description="optimizer steps; overrides num_train_epochs")
    train_batch_size: int = Field(16, ge=1, le=MOST_ROWS, description="rows in one optimizer step")
    per_device_train_batch_size: int | None = Field(
        None,
        ge=1,
        le=MOST_ROWS,
        description="rows in one forward pass; a step adds up the gradients of several. Default: train_batch_size",
    )
    per_device_eval_batch_size: int = Field(
        16, ge=1, le=MOST_ROWS, description="rows in one forward pass of an evaluation"
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="peak learning rate; default: 2e-4 with lora, else 3e-4 for causal-lm and 5e-5 for other tasks",
    )
    min_learning_rate_ratio: float = Field(0.1, ge=0, le=1, description="final learning rate as a share of the peak")
    warmup_steps: float | None = Field(
        None,
        ge=0,
        le=MOST_STEPS,
        description="steps, or below 1 a share of all; default: 1 % (of fewer than 1000 steps 3 %), at least 10 and at"
        " most half",
    )
    weight_decay: float = Field(0.1, ge=0, description="AdamW's weight decay, of matrices alone")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the first moment")
    adam_beta2: float = Field(0.95, ge=0, lt=1, description="AdamW: decay of the second moment")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW: added to the root of the second moment")
    max_grad_norm: float = Field(1.0, ge=0, description="norm that the whole gradient is clipped to; 0: never")
    bf16: bool | Literal["auto"] = Field(
        "auto", description="compute in bfloat16 (autocast); auto: where the hardware is faster with it"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, more time"
    )
    save_seconds: float = Field(60.0, ge=0, description="seconds between checkpoints")
    save_steps: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="steps between checkpoints; overrides save_seconds"
    )
    seed: int = Field(
        1234, ge=0, lt=2**63, description="seed of the order of rows, of adapters, dropout and new rows of the head"
    )
