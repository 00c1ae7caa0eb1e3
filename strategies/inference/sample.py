"""Documents sampled from a model itself, to stand in for data it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers

from strategies.contract import SampleWork
from strategies.errors import Refused
from strategies.inference.precision import Precision


def sample(
    model: Any, tokenizer: Any, work: SampleWork, *, precision: Precision, rows: int, tick: Callable[[], None]
) -> Iterator[str]:
    """``work.documents`` texts, sampled at temperature 1 from the whole distribution under ``work.seed``."""
    opening = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if opening is None:
        raise Refused("the tokenizer has no token to begin a document with; give the stream an anchor instead")
    limit = getattr(model.config, "max_position_embeddings", None) or work.tokens + 1
    settings = transformers.GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=min(work.tokens, limit - 1),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(work.seed)
    for start in range(0, work.documents, rows):
        tick()
        count = min(rows, work.documents - start)
        first = torch.full((count, 1), opening, device=precision.device)
        with torch.inference_mode(), precision.autocast():
            found = model.generate(first, attention_mask=torch.ones_like(first), generation_config=settings)
        texts = tokenizer.batch_decode(found[:, 1:], skip_special_tokens=True)
        yield from (text for text in texts if text.strip())
