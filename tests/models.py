"""Makers of tiny models on disk, without any network: each takes seconds and is the same every time."""

from __future__ import annotations

import pydoc_data.topics
from pathlib import Path
from typing import Any

VOCABULARY = 512
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def texts(count: int, *, start: int = 0, words: int = 60) -> list[str]:
    """Paragraphs of Python's own documentation, all different."""
    flow = " ".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)).split()
    return [" ".join(flow[at * words : (at + 1) * words]) for at in range(start, start + count)]


def tokenizer(folder: Path, *, chat: bool = False) -> Any:
    """A byte-level BPE tokenizer of 512 tokens, trained on :func:`texts`, saved in ``folder``."""
    import tokenizers
    import transformers

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    special = ["<|endoftext|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts(200), trainer)
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        additional_special_tokens=special[2:],
        model_max_length=512,
    )
    if chat:
        made.chat_template = TEMPLATE
    made.save_pretrained(folder)
    return made


def llama(
    folder: Path, *, chat: bool = False, hidden: int = 32, layers: int = 2, dropout: float = 0.0, seed: int = 7
) -> Path:
    """A causal language model of the Llama kind."""
    import torch
    import transformers

    tokenizer(folder, chat=chat)
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        attention_dropout=dropout,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def gpt2(folder: Path, *, dropout: float = 0.1, seed: int = 7) -> Path:
    """A causal language model of the GPT-2 kind, with dropout."""
    import torch
    import transformers

    tokenizer(folder)
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=512,
        attn_pdrop=dropout,
        embd_pdrop=dropout,
        resid_pdrop=dropout,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def bert(folder: Path, *, labels: tuple[str, ...] = (), seed: int = 7) -> Path:
    """A text classifier of the BERT kind; without ``labels`` its head was never trained."""
    import torch
    import transformers

    tokenizer(folder)
    torch.manual_seed(seed)
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        pad_token_id=1,
        **(named if labels else {}),
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def small(folder: Path, name: str, *, layers: int = 2, seed: int = 7) -> Path:
    """A model of a shape in :mod:`tests.strategies.tables` that tokenizes as the others do."""
    import torch

    from tests.strategies import tables

    tokenizer(folder)
    torch.manual_seed(seed)
    tables.model(name, layers, vocab_size=VOCABULARY, pad_token_id=1).save_pretrained(folder)
    return folder
