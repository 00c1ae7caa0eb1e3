"""Parameter tables of real architectures, made from tiny configurations on the meta device."""

from __future__ import annotations

from functools import cache
from typing import Any

from strategies.contract import Parameter
from strategies.settings import Json

DECODER: Json = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
ENCODER: Json = {name: value for name, value in DECODER.items() if name != "num_key_value_heads"}
GPT2: Json = {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
DISTILBERT: Json = {"vocab_size": 32, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 4}
OPT: Json = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 24,
    "word_embed_proj_dim": 16,
}
T5: Json = {"vocab_size": 32, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
CLS, LM = "ForSequenceClassification", "ForCausalLM"
SHAPES: dict[str, tuple[str, str, Json]] = {
    "llama": ("Llama", LM, {**DECODER, "num_key_value_heads": 4}),
    "llama-gqa": ("Llama", LM, DECODER),
    "llama-tied": ("Llama", LM, {**DECODER, "tie_word_embeddings": True}),
    "mistral": ("Mistral", LM, DECODER),
    "qwen2": ("Qwen2", LM, DECODER),
    "qwen3": ("Qwen3", LM, {**DECODER, "head_dim": 8}),
    "gemma": ("Gemma", LM, {**DECODER, "head_dim": 8}),
    "gemma2": ("Gemma2", LM, {**DECODER, "head_dim": 8}),
    "gemma3": ("Gemma3", LM, {**DECODER, "head_dim": 8}),
    "phi": ("Phi", LM, {**DECODER, "num_key_value_heads": 4}),
    "phi3": ("Phi3", LM, DECODER),
    "opt": ("OPT", LM, OPT),
    "gpt2": ("GPT2", "LMHeadModel", GPT2),
    "gpt-neox": ("GPTNeoX", LM, ENCODER),
    "mixtral": ("Mixtral", LM, {**DECODER, "num_local_experts": 2}),
    "bert": ("Bert", CLS, ENCODER),
    "roberta": ("Roberta", CLS, ENCODER),
    "distilbert": ("DistilBert", CLS, DISTILBERT),
    "modernbert": ("ModernBert", CLS, {**ENCODER, "cls_token_id": 0, "sep_token_id": 0}),
    "t5": ("T5", "ForConditionalGeneration", T5),
}
LAYERS = {"GPT2": "n_layer", "DistilBert": "n_layers", "T5": "num_layers"}
MULTI_HEAD = ("llama", "phi", "opt", "gpt2", "bert", "roberta", "distilbert", "modernbert")
GROUPED = ("llama-gqa", "llama-tied", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3")
KNOWN = (*MULTI_HEAD, *GROUPED)


@cache
def table(name: str, layers: int = 2) -> tuple[Parameter, ...]:
    """The table of a shape with ``layers`` blocks."""
    import torch

    from strategies.training.table import parameter_table

    with torch.device("meta"):
        return parameter_table(model(name, layers))


def model(name: str, layers: int = 2, **changes: Any) -> Any:
    """The model itself, with random weights; ``changes`` are of its configuration."""
    import transformers

    kind, head, settings = SHAPES[name]
    # Gemma 3's text model alone has a configuration of another name.
    config = getattr(transformers, f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config")
    return getattr(transformers, f"{kind}{head}")(
        config(**{**settings, LAYERS.get(kind, "num_hidden_layers"): layers, **changes})
    )
