"""The doctor: every fault is found in a model that has it, and in no other."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.core.small_models import Arrays, arrays_of, change_config, config_of, save, with_tokenizer
from tests.core.tokenization_models import small_model, with_pieces
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.conversion import convert
from xlmr_core.diagnosis import CHECKS, Diagnosis, diagnose
from xlmr_core.errors import ModelNotFoundError
from xlmr_core.hub import resolve


def healthy_model(
    folder: Path,
    head: str = "ForSequenceClassification",
    family: str = "base",
    change: Callable[[Arrays], None] | None = None,
    **config: object,
) -> Path:
    """A healthy model, unless something is changed."""
    made = config_of(family, head, **config)
    arrays = arrays_of(made, head)
    if change is not None:
        change(arrays)
    save(folder, made, head, arrays)
    with_tokenizer(folder)
    return folder


def found_by(found: Diagnosis) -> list[tuple[str, bool]]:
    return [(finding.check, finding.is_ill) for finding in found.findings]


def expect(folder: Path, check: str, message: str, *, is_ill: bool = True) -> None:
    """Exactly this check finds something, once."""
    found = diagnose(folder)
    assert found_by(found) == [(check, is_ill)], found.findings
    finding = found.findings[0]
    assert re.search(message, finding.what), finding.what
    assert finding.remedy
    assert "\n" not in finding.what + finding.remedy
    assert found.healthy is not is_ill


@pytest.mark.parametrize(
    "head", ["Model", "ForMaskedLM", "ForCausalLM", "ForSequenceClassification", "ForQuestionAnswering"]
)
@pytest.mark.parametrize("family", ["base", "xl"])
def test_healthy_models(family: str, head: str, tmp_path: Path) -> None:
    found = diagnose(healthy_model(tmp_path, head, family))
    assert found.findings == ()
    assert found.healthy
    assert found.checks == ("opens", *(check.name for check in CHECKS))


def test_the_built_in_model_is_healthy() -> None:
    assert diagnose("xlmr-mini").findings == ()
    assert diagnose(resolve("xlmr-mini") / "model.safetensors").healthy


def test_a_model_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModelNotFoundError):
        diagnose("no/such/folder")


# Files


def test_a_folder_without_weights_and_a_file_that_was_cut(tmp_path: Path) -> None:
    found = diagnose(tmp_path)
    assert found_by(found) == [("opens", True)]
    assert "found no weights" in found.findings[0].what
    assert found.findings[0].remedy == "check the folder"
    healthy_model(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-100])
    found = diagnose(tmp_path)
    assert found_by(found) == [("opens", True)]
    assert "not a whole safetensors file" in found.findings[0].what


def test_a_config_of_another_architecture_or_quantization(tmp_path: Path) -> None:
    change_config(healthy_model(tmp_path), model_type="bert")
    assert found_by(diagnose(tmp_path)) == [("opens", True)]
    change_config(tmp_path, model_type="xlm-roberta", quantization_config={"quant_method": "gptq"})
    found = diagnose(tmp_path)
    assert ("fits", True) in found_by(found)
    assert "gptq" in found.findings[0].what


def test_weights_that_do_not_fit_the_config(tmp_path: Path) -> None:
    change_config(healthy_model(tmp_path), intermediate_size=30)
    expect(tmp_path, "fits", r"must have the shape \(30, 16\), received \(24, 16\)")
    change_config(tmp_path, intermediate_size=24, num_hidden_layers=3)
    expect(tmp_path, "fits", "expected the encoder weight roberta.encoder.layer.2")


def test_a_fresh_head(tmp_path: Path) -> None:
    healthy_model(tmp_path, change=lambda arrays: arrays.pop("classifier.out_proj.weight"))
    expect(
        tmp_path, "head", "^classifier.out_proj.weight not in the file: XLMRobertaForSequenceClassification would start"
    )


def test_the_head_of_another_task(tmp_path: Path) -> None:
    change_config(healthy_model(tmp_path, "ForMaskedLM"), architectures=["XLMRobertaForQuestionAnswering"])
    found = diagnose(tmp_path)
    assert found_by(found) == [("head", True), ("head", True)]
    assert "lm_head.bias, lm_head.dense.weight" in found.findings[1].what


def test_no_architectures(tmp_path: Path) -> None:
    change_config(healthy_model(tmp_path), architectures=None)
    expect(tmp_path, "head", "by its parameters this is XLMRobertaForSequenceClassification", is_ill=False)


@pytest.mark.parametrize(("head", "is_decoder"), [("ForMaskedLM", True), ("ForCausalLM", False)])
def test_a_decoder_that_is_none_and_the_other_way_round(head: str, is_decoder: bool, tmp_path: Path) -> None:
    change_config(healthy_model(tmp_path, head), is_decoder=is_decoder)
    expect(tmp_path, "head", f"is_decoder={str(is_decoder).lower()}")


def test_leftovers(tmp_path: Path) -> None:
    healthy_model(tmp_path, change=lambda arrays: arrays.update({"mine": np.ones(2, np.float32)}))
    expect(tmp_path, "leftovers", "^mine in the file has no place", is_ill=False)
    both = {"mine": np.ones(2, np.float32), "yours": np.ones(2, np.float32)}
    healthy_model(tmp_path, change=lambda arrays: arrays.update(both))
    expect(tmp_path, "leftovers", "^mine, yours in the file have no place", is_ill=False)


def test_a_class_of_a_users_own(tmp_path: Path) -> None:
    change_config(healthy_model(tmp_path), architectures=["Mine"])
    expect(tmp_path, "head", "names Mine, which is none of this library; it has no tensor of its own", is_ill=False)
    healthy_model(tmp_path, change=lambda arrays: arrays.update({"mine": np.ones(2, np.float32)}))
    change_config(tmp_path, architectures=["Mine"])
    expect(tmp_path, "head", r"it has 1 tensor of its own \(mine\), and what is examined is the XLMR", is_ill=False)


def test_what_our_own_classes_give_by_default_is_no_fault(tmp_path: Path) -> None:
    config = XLMRobertaConfig(vocab_size=125, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    config.architectures = ["XLMRobertaForSequenceClassification"]
    save(tmp_path, config, "ForSequenceClassification")
    with_tokenizer(tmp_path, model_max_length=10**30)
    found = diagnose(tmp_path)
    assert found.healthy, found.findings
    assert {finding.check for finding in found.findings} == {"config", "labels", "length"}


def test_a_decoder_that_is_no_copy_of_its_embedding(tmp_path: Path) -> None:
    def change(arrays: Arrays) -> None:
        arrays["lm_head.decoder.weight"] = arrays["roberta.embeddings.word_embeddings.weight"] + 1

    healthy_model(tmp_path, "ForMaskedLM", change=change)
    expect(tmp_path, "leftovers", "^lm_head.decoder.weight in .* differs from")


def test_two_weight_files_that_agree_and_then_do_not(tmp_path: Path) -> None:
    healthy_model(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "a", "torch")
    assert diagnose(tmp_path / "a").findings == ()
    healthy_model(tmp_path / "b", change=lambda arrays: arrays["classifier.dense.bias"].fill(0.5))
    convert(tmp_path / "b", tmp_path / "b", "torch")
    shutil.copy(tmp_path / "b" / "pytorch_model.bin", tmp_path / "a" / "pytorch_model.bin")
    expect(
        tmp_path / "a",
        "files",
        r"^pytorch_model.bin and model.safetensors hold different weights \(classifier.dense.bias\)",
    )
    (tmp_path / "a" / "pytorch_model.bin").write_bytes(b"nothing")
    expect(tmp_path / "a", "files", "^pytorch_model.bin stands beside model.safetensors and cannot be read")


def test_an_old_index_shards_without_one_and_what_a_kill_left(tmp_path: Path) -> None:
    healthy_model(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    expect(tmp_path, "files", "^model.safetensors.index.json stands beside model.safetensors")
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"x")
    expect(tmp_path, "files", "^no index names the shard model-00001-of-00002.safetensors")
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    (tmp_path / ".model.safetensors.abc.tmp").write_bytes(b"x")
    expect(tmp_path, "files", "left by a save that was killed", is_ill=False)


def test_shards_with_an_index_are_healthy(tmp_path: Path) -> None:
    config = config_of("base", "ForSequenceClassification")
    save(tmp_path, config, "ForSequenceClassification", max_shard_size="10kB")
    with_tokenizer(tmp_path)
    assert diagnose(tmp_path).findings == ()


def test_a_pickle_is_worth_a_word(tmp_path: Path) -> None:
    convert(healthy_model(tmp_path / "a"), tmp_path / "b", "torch")
    expect(tmp_path / "b", "files", "^pytorch_model.bin is a pickle", is_ill=False)


# Values


@pytest.mark.parametrize(("value", "words"), [(np.nan, "1 NaN and 0 infinite"), (-np.inf, "0 NaN and 1 infinite")])
def test_weights_that_are_no_numbers(value: float, words: str, tmp_path: Path) -> None:
    def change(arrays: Arrays) -> None:
        arrays["roberta.encoder.layer.1.output.dense.weight"][2, 2] = value

    healthy_model(tmp_path, change=change)
    expect(tmp_path, "values", rf"^roberta.encoder.layer.1.output.dense.weight holds values .*\({words}")


def test_weights_that_were_never_loaded(tmp_path: Path) -> None:
    healthy_model(tmp_path, change=lambda arrays: arrays["roberta.encoder.layer.0.attention.self.key.weight"].fill(0))
    expect(tmp_path, "values", "key.weight is all zero")


def test_values_that_float16_cannot_hold(tmp_path: Path) -> None:
    def change(arrays: Arrays) -> None:
        arrays["roberta.encoder.layer.0.output.dense.bias"][0] = 70000

    healthy_model(tmp_path, change=change)
    expect(tmp_path, "float16", "output.dense.bias holds values over 65504")


def test_xl_in_float16(tmp_path: Path) -> None:
    convert(healthy_model(tmp_path / "a", "Model", "xl"), tmp_path / "b", "safetensors", dtype="float16")
    expect(tmp_path / "b", "float16", "^an XL model in float16")
    convert(tmp_path / "a", tmp_path / "c", "safetensors", dtype="bfloat16")
    assert diagnose(tmp_path / "c").findings == ()


def test_xl_with_large_hidden_states_whatever_its_dtype(tmp_path: Path) -> None:
    def change(arrays: Arrays) -> None:
        arrays["encoder.layer.0.output.dense.bias"][0] = 30000

    healthy_model(tmp_path, "Model", "xl", change=change)
    expect(tmp_path, "float16", r"reach 3e\+04 on a short input")


def test_dtypes(tmp_path: Path) -> None:
    change_config(healthy_model(tmp_path), dtype="float16")
    expect(tmp_path, "dtype", "^config.json says float16 and the weights are float32", is_ill=False)
    change_config(tmp_path, dtype=None)
    assert diagnose(tmp_path).findings == ()
    config = config_of("base", "Model")
    arrays = {name: x if "bias" in name else x.astype(np.float16) for name, x in arrays_of(config, "Model").items()}
    save(tmp_path / "mixed", config, "Model", arrays)
    with_tokenizer(tmp_path / "mixed")
    expect(tmp_path / "mixed", "dtype", "^weights are stored in float16, float32", is_ill=False)


# Configuration


def test_the_epsilon_of_the_default_config(tmp_path: Path) -> None:
    change_config(healthy_model(tmp_path), layer_norm_eps=1e-12)
    expect(tmp_path, "config", "^layer_norm_eps is 1e-12", is_ill=False)
    change_config(tmp_path, model_type="roberta")
    assert diagnose(tmp_path).findings == ()


def test_a_position_table_without_its_first_rows(tmp_path: Path) -> None:
    config = XLMRobertaConfig(**{**config_of("base", "Model").to_dict(), "max_position_embeddings": 512})
    save(tmp_path, config, "Model")
    with_tokenizer(tmp_path)
    expect(tmp_path, "config", "^max_position_embeddings is 512, which takes texts of 510 tokens", is_ill=False)


def test_another_padding_id_without_a_tokenizer_to_ask(tmp_path: Path) -> None:
    healthy_model(tmp_path, pad_token_id=3)
    (tmp_path / "sentencepiece.bpe.model").unlink()
    found = diagnose(tmp_path)
    assert found_by(found) == [("config", False), ("tokenizer", False)]


def test_labels(tmp_path: Path) -> None:
    healthy_model(tmp_path / "a", num_labels=3)
    words = r"^id2label has no names for 3 of 3 labels \(LABEL_0, LABEL_1, LABEL_2\)"
    expect(tmp_path / "a", "labels", words, is_ill=False)
    change_config(healthy_model(tmp_path / "b"), label2id={"red": 0, "green": 2, "blue": 1})
    expect(tmp_path / "b", "labels", "^label2id does not lead back from id2label for green, blue")
    assert diagnose(healthy_model(tmp_path / "c", num_labels=1)).findings == ()  # a score needs no name


# Tokenizer


def test_no_tokenizer(tmp_path: Path) -> None:
    healthy_model(tmp_path)
    (tmp_path / "sentencepiece.bpe.model").unlink()
    expect(tmp_path, "tokenizer", "^no tokenizer.json and no sentencepiece.bpe.model", is_ill=False)


def test_a_tokenizer_that_cannot_be_read(tmp_path: Path) -> None:
    (healthy_model(tmp_path) / "sentencepiece.bpe.model").write_bytes(b"nothing")
    found = diagnose(tmp_path)
    assert found_by(found) == [("tokenizer", True)]


def test_a_tokenizer_class_of_another_model(tmp_path: Path) -> None:
    healthy_model(tmp_path)
    with_tokenizer(tmp_path, tokenizer_class="LlamaTokenizer")
    found = diagnose(tmp_path)
    assert found_by(found) == [("tokenizer", True)]
    assert "LlamaTokenizer" in found.findings[0].what


def test_two_tokenizers_that_disagree(tmp_path: Path) -> None:
    from xlmr_core.tokenization import tokenizer_json_from_model

    healthy_model(tmp_path)
    (tmp_path / "tokenizer.json").write_text(tokenizer_json_from_model(tmp_path / "sentencepiece.bpe.model"))
    assert diagnose(tmp_path).findings == ()
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["pre_tokenizer"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    expect(tmp_path, "tokenizer", "^tokenizer.json and sentencepiece.bpe.model give different ids")
    (tmp_path / "sentencepiece.bpe.model").write_bytes(with_pieces(small_model(), 123))
    expect(tmp_path, "tokenizer", "122 entries and 123 pieces")


def test_a_vocabulary_that_does_not_fit_the_embedding(tmp_path: Path) -> None:
    healthy_model(tmp_path / "small", vocab_size=100)
    expect(tmp_path / "small", "vocabulary", "gives ids up to 121, and the embedding has 100 rows")
    healthy_model(tmp_path / "large", vocab_size=2000)
    expect(tmp_path / "large", "vocabulary", "the embedding has 2000 rows and the tokenizer 122 ids")


@pytest.mark.parametrize(("name", "expected"), [("pad", 1), ("bos", 0), ("eos", 2)])
def test_special_ids(name: str, expected: int, tmp_path: Path) -> None:
    change_config(healthy_model(tmp_path), **{f"{name}_token_id": 3})
    expected_words = f"^{name}_token_id is 3 in config.json and {expected} in the tokenizer"
    found = diagnose(tmp_path)
    assert ("vocabulary", True) in found_by(found)
    assert any(re.search(expected_words, finding.what) for finding in found.findings)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (34, "is 34, the rows of the position table, of which a text can use 32"),
        (10**30, "is not set, and the model takes 32 tokens"),
        (64, "is 64, and the model takes 32 tokens"),
    ],
)
def test_a_tokenizer_that_truncates_too_late(length: int, words: str, tmp_path: Path) -> None:
    healthy_model(tmp_path)
    with_tokenizer(tmp_path, model_max_length=length)
    expect(tmp_path, "length", words, is_ill=length < 10**9)


def test_a_sentence_encoder_that_truncates_too_late(tmp_path: Path) -> None:
    healthy_model(tmp_path)
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 33}))
    expect(tmp_path, "length", "max_seq_length 33, and the model takes 32 tokens")
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32}))
    assert diagnose(tmp_path).findings == ()
