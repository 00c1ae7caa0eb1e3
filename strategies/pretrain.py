"""Train a small base model from nothing: ``python -m strategies.pretrain TEXT.jsonl OUT --steps 360``.

For the demonstration and for tests, where no base model may be downloaded: a byte-level BPE tokenizer and a small
Llama, in an ordinary Hugging Face folder. Prints one JSON object a line on its progress. Deterministic for one thread
count on one machine: the same text gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from strategies import schedule
from strategies.parts import CosineSchedule
from strategies.training.decay import decay_groups

END = "<|endoftext|>"
PAD = "<|pad|>"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the base model is made; the defaults take about a minute of one core."""

    vocabulary: int = 2048
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    length: int = 256
    rows: int = 8
    steps: int = 360
    peak: float = 3e-3
    warmup: int = 40
    seed: int = 1234

    def rate(self, step: int) -> float:
        """Learning rate of a step counted from 1: linear warm-up, cosine to a tenth of the peak."""
        cosine = CosineSchedule(steps=self.steps, warmup=self.warmup, lr=self.peak, min_lr=self.peak / 10)
        return schedule.rate(cosine, step)


def train_tokenizer(texts: list[str], recipe: Recipe) -> PreTrainedTokenizerFast:
    """A lossless byte-level BPE tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=PAD)


def new_model(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> LlamaForCausalLM:
    """A Llama with random weights."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.hidden * 11 // 4,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=2 * recipe.length,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def pack(tokenizer: PreTrainedTokenizerFast, texts: list[str], length: int) -> torch.Tensor:
    """All documents in one row of tokens, each closed by the end token, cut into rows [n, length].

    Raises:
        ValueError: the text is shorter than one row.
    """
    ids = [token for text in texts for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    rows = len(ids) // length
    if rows == 0:
        raise ValueError(f"the text has {len(ids)} tokens, fewer than one row of {length}: give more text")
    return torch.tensor(ids[: rows * length]).view(rows, length)


def train(model: LlamaForCausalLM, rows: torch.Tensor, recipe: Recipe) -> None:
    """Adam with decay on matrices, over shuffled passes of the rows."""
    optimizer = torch.optim.AdamW(decay_groups(model.parameters(), 0.1), lr=recipe.peak, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(recipe.seed)
    order = torch.empty(0, dtype=torch.long)
    model.train()
    for step in range(1, recipe.steps + 1):
        while len(order) < recipe.rows:
            order = torch.cat([order, torch.randperm(len(rows), generator=generator)])
        batch, order = rows[order[: recipe.rows]], order[recipe.rows :]
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0 or step == recipe.steps:
            _say(phase="train", step=step, steps=recipe.steps, loss=round(loss.item(), 4))


def make_base(texts: list[str], out: Path, recipe: Recipe) -> None:
    """Tokenizer and model, trained and saved as a Hugging Face folder."""
    _say(phase="tokenizer", step=0, steps=recipe.steps)
    tokenizer = train_tokenizer(texts, recipe)
    model = new_model(tokenizer, recipe)
    rows = pack(tokenizer, texts, recipe.length)
    _say(phase="train", step=0, steps=recipe.steps, parameters=model.num_parameters(), tokens=rows.numel())
    train(model, rows, recipe)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    _say(phase="done", step=recipe.steps, steps=recipe.steps)


def _say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def main(argv: list[str] | None = None) -> int:
    """Read the texts, make the model; exit code 1 with one line if the text does not suffice."""
    parser = argparse.ArgumentParser(prog="python -m strategies.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="JSONL with a text column")
    parser.add_argument("out", type=Path, help="folder of the new model")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="seed of weights and order")
    given = parser.parse_args(argv)
    texts = [json.loads(line)["text"] for line in given.text.read_text(encoding="utf-8").splitlines() if line.strip()]
    try:
        make_base(texts, given.out, Recipe(steps=given.steps, seed=given.seed))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
