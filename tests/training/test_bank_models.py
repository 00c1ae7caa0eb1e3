"""Banks on models whose rows peft cannot deal out among adapters, and on tokenizers that pad on the left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from strategies.contract import ModelFiles
from strategies.inference.bank import ClassBank
from strategies.inference.bank import load as load_export
from strategies.inference.bank.adapted import BASE, mixes, run, under
from strategies.inference.export_bank import export_bank
from tests import models
from tests.training import banks

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 512}
TOKENS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0}


def opt() -> Any:
    """Its feed-forward layers see the rows flattened."""
    shape = {**SHAPE, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 512}
    return transformers.OPTForCausalLM(transformers.OPTConfig(**shape, **TOKENS))


def opt_classifier() -> Any:
    """Its attention has an ``out_proj``."""
    shape = {**SHAPE, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 512}
    return transformers.OPTForSequenceClassification(transformers.OPTConfig(**shape, **TOKENS))


def mixtral() -> Any:
    """Its experts' adapters are on parameters."""
    shape = {**SHAPE, "intermediate_size": 64, "num_key_value_heads": 4, "num_local_experts": 4}
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**shape, num_experts_per_tok=2, **TOKENS))


def deberta() -> Any:
    """Its relative positions are one input for all rows."""
    shape = {**SHAPE, "intermediate_size": 64, "max_position_embeddings": 512}
    positions = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": True}
    config = transformers.DebertaV2Config(**shape, **positions, pad_token_id=1)
    return transformers.DebertaV2ForSequenceClassification(config)


def saved(folder: Path, made: Callable[[], Any]) -> Path:
    """The model and its tokenizer as a folder."""
    models.tokenizer(folder)
    torch.manual_seed(0)
    made().save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match")
@pytest.mark.parametrize("made", [opt, mixtral])
def test_a_bank_answers_on_a_model_whose_rows_cannot_be_dealt_out(tmp_path: Path, made: Callable[[], Any]) -> None:
    base = saved(tmp_path / "base", made)
    bank = banks.opened_domains(base, banks.domain_bank(tmp_path, base))
    assert not mixes(bank.model)
    texts = [row["text"] for label in ("calm", "red") for row in banks.spoken(label, 3, start=40)]
    ids, lengths = banks.prompts(bank, texts)
    with torch.inference_mode():
        together = bank(input_ids=ids, prompts=lengths)
        alone = [bank(input_ids=ids[at : at + 1], prompts=lengths[at : at + 1]) for at in range(len(texts))]
    assert set(together.adapters) == {0, 1}
    for at, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(together.logits[at, :length], alone[at].logits[0, :length], atol=1e-5, rtol=0)
    with under(bank.model, "t1"):
        asked, _ = bank.asked(texts[0])
        wanted = bank.model.generate(
            input_ids=asked, attention_mask=torch.ones_like(asked), max_new_tokens=4, do_sample=False, pad_token_id=1
        )
    said = bank.generate(texts[0], max_new_tokens=4, do_sample=False)
    assert said == bank.tokenizer.decode(wanted[0, asked.shape[1] :], skip_special_tokens=True)
    assert bank.changed() == ()


def test_a_classifier_whose_positions_are_shared_is_routed_evaluated_and_exported(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", deberta)
    folder = banks.class_bank(tmp_path, base)
    bank = banks.opened_classes(base, folder)
    assert not mixes(bank.body)
    texts = [row["text"] for row in banks.told(("calm", "angry", "red", "blue"), 8, start=70)]
    with torch.inference_mode():
        together = bank(**banks.classes(bank, texts)).logits
        alone = torch.cat([bank(**banks.classes(bank, [text])).logits for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    export_bank(ModelFiles(path=str(base), bank=str(folder)), "classification", tmp_path / "export")
    exported = load_export(tmp_path / "export")
    assert isinstance(exported, ClassBank)
    assert exported.classify(texts) == bank.classify(texts)


def test_one_pass_an_adapter_gives_what_one_pass_for_all_rows_gives(llama: Path, tmp_path: Path) -> None:
    bank = banks.opened_domains(llama, banks.domain_bank(tmp_path, llama))
    assert mixes(bank.model)
    ids = torch.arange(2, 26).reshape(4, 6)
    names = ["t2", BASE, "t1", "t2"]
    with torch.inference_mode():
        mixed = run(bank.model, {"input_ids": ids, "output_hidden_states": True}, names)
    for at, name in enumerate(names):
        with torch.inference_mode(), under(bank.model, name):
            alone = bank.model(input_ids=ids[at : at + 1], output_hidden_states=True)
        torch.testing.assert_close(mixed.logits[at], alone.logits[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(mixed.hidden_states[1][at], alone.hidden_states[1][0], atol=1e-5, rtol=0)
    assert bank.model.active_adapter == "t1"
    assert not [name for name, one in bank.model.named_parameters() if one.requires_grad]


def test_a_body_with_layers_called_like_a_head_keeps_them(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", opt_classifier)
    selection = {"lora": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}}
    job = banks.class_job(tmp_path / "a", base, ("calm", "angry"), name="t1", selection=selection, **banks.hurried(8))
    bank = banks.opened_classes(base, banks.made(tmp_path / "1", job))
    assert tuple(bank.classifier.weight.shape) == (2, SHAPE["hidden_size"])
    assert bank.classify(["quiet lake morning rest"])[0][0] == "calm"


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_a_tokenizer_that_pads_on_the_left_changes_no_answer(tmp_path: Path, pooling: str) -> None:
    base = models.gpt2(tmp_path / "base")
    config = base / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_bytes()), "padding_side": "left"}))
    job = banks.class_job(
        tmp_path / "a", base, ("calm", "angry"), name="t1", selection={"pooling": pooling}, **banks.hurried(8)
    )
    bank = banks.opened_classes(base, banks.made(tmp_path / "1", job))
    assert bank.tokenizer.padding_side == "left"
    texts = ["quiet", "8 6", "shout slam fury storm " * 6, "1 3 5 7 9 " * 9, ""]
    alone = [bank.classify([text])[0] for text in texts]
    for (label, sure), (own, probability) in zip(bank.classify(texts), alone, strict=True):
        assert label == own
        assert sure == pytest.approx(probability, abs=1e-5)
