"""Published calls run unchanged: arguments that ask for nothing here are accepted, those that ask for the impossible
say so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import xlmr_torch
from xlmr_core import atomic_files, reference
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import CheckpointError, InputError
from xlmr_core.tokenization import XLMRobertaTokenizerFast

IDS = torch.tensor([[0, 5, 6, 2], [0, 7, 8, 2]])


def small(**changes: Any) -> XLMRobertaConfig:
    numbers = {
        "vocab_size": 31,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    return XLMRobertaConfig(**{**numbers, "max_position_embeddings": 20, "type_vocab_size": 1, **changes})


@pytest.fixture
def model() -> xlmr_torch.XLMRobertaForMaskedLM:
    torch.manual_seed(0)
    return xlmr_torch.XLMRobertaForMaskedLM(small()).eval()


@pytest.mark.parametrize(
    "arguments",
    [
        {"is_main_process": True, "save_function": torch.save},
        {"save_peft_format": True, "safe_serialization": True, "max_shard_size": "1GB"},
        {"push_to_hub": False, "variant": None, "token": None},
    ],
)
def test_save_pretrained_accepts(model: Any, tmp_path: Path, arguments: dict[str, Any]) -> None:
    model.save_pretrained(tmp_path, **arguments)
    assert (tmp_path / "model.safetensors").is_file()


def test_save_pretrained_writes_in_the_main_process_only(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "other", False)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "arguments", [{"tags": ["x"], "push_to_hub": True}, {"variant": "fp16"}, {"safe_serialization": False}]
)
def test_save_pretrained_refuses(model: Any, tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        model.save_pretrained(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"low_cpu_mem_usage": True, "weights_only": True, "trust_remote_code": True},
        {"from_tf": False, "from_flax": False, "use_safetensors": True, "variant": None},
        {"quantization_config": None, "load_in_8bit": False, "max_memory": {0: "1GB"}, "offload_folder": "x"},
    ],
)
def test_from_pretrained_accepts(model: Any, tmp_path: Path, arguments: dict[str, Any]) -> None:
    model.save_pretrained(tmp_path)
    again = xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(tmp_path, **arguments)
    torch.testing.assert_close(again(IDS).logits, model(IDS).logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"from_tf": True, "from_flax": True},
        {"variant": "fp16"},
        {"key_mapping": {}},
        {"proxies": {}},
        {"use_auth_token": "t"},
    ],
)
def test_from_pretrained_refuses_what_it_cannot_serve(model: Any, tmp_path: Path, arguments: dict[str, Any]) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=next(iter(arguments))):
        xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(tmp_path, **arguments)


def test_from_pretrained_without_a_name(model: Any) -> None:
    again = xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    torch.testing.assert_close(again(IDS).logits, model(IDS).logits, rtol=0, atol=0)
    with pytest.raises(InputError, match="received None"):
        xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(None, config=model.config)


def test_from_config_takes_what_from_pretrained_takes() -> None:
    auto = xlmr_torch.AutoModelForMaskedLM
    made = auto.from_config(
        small(), attn_implementation="eager", packing="never", dtype=torch.bfloat16, trust_remote_code=False
    )
    assert (made.attn_implementation, made.packing, made.dtype) == ("eager", "never", torch.bfloat16)
    assert auto.from_config(small(dtype="float16"), torch_dtype="auto").dtype is torch.float16
    assert auto.from_config(small(dtype="float16")).dtype is torch.float16
    with pytest.raises(InputError, match="quantization_config"):
        auto.from_config(small(), quantization_config={})


@pytest.mark.parametrize("name", ["past_key_values", "cache_position"])
def test_the_places_of_the_cache(name: str) -> None:
    """They are of decoders, which test_cache.py is about; other heads have no such argument."""
    model = xlmr_torch.XLMRobertaForCausalLM(small(is_decoder=True)).eval()
    model(IDS, **{name: None})
    model(IDS, cache_position=torch.arange(4))
    with pytest.raises(InputError, match=name):
        model(IDS, **{name: torch.arange(3)})


def test_num_items_in_batch_divides_the_sum() -> None:
    model = xlmr_torch.XLMRobertaForCausalLM(small(is_decoder=True)).eval()
    mean = model(IDS, labels=IDS).loss  # six labels count
    torch.testing.assert_close(model(IDS, labels=IDS, num_items_in_batch=3).loss, 2 * mean)
    torch.testing.assert_close(model(IDS, labels=IDS, num_items_in_batch=torch.tensor(12)).loss, mean / 2)


@pytest.mark.parametrize("zero", [None, (0, 0, 1)], ids=["full", "one zero"])
@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_a_mask_with_a_row_for_each_query_replaces_the_causal_one(zero: Any, attn_implementation: str) -> None:
    torch.manual_seed(0)
    config = small(is_decoder=True)
    model = xlmr_torch.XLMRobertaForCausalLM(config).eval().set_attn_implementation(attn_implementation)
    mask = torch.ones(2, 4, 4)
    if zero:
        mask[zero] = 0
    params = {name: value.numpy() for name, value in model.state_dict().items()}
    wanted = reference.forward(config, "ForCausalLM", params, input_ids=IDS.numpy(), attention_mask=mask.numpy()).logits
    with torch.no_grad():
        np.testing.assert_allclose(model(IDS, attention_mask=mask, use_cache=False).logits.numpy(), wanted, atol=2e-5)


@pytest.mark.parametrize(
    "name", ["input_ids", "attention_mask", "token_type_ids", "position_ids", "head_mask", "labels", "masked_positions"]
)
@pytest.mark.parametrize(
    "value", [[[0, 5, 6, 2], [0, 7, 8, 2]], np.array([[0, 5, 6, 2], [0, 7, 8, 2]])], ids=["list", "array"]
)
def test_inputs_are_tensors(model: Any, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"{name} must be a torch.Tensor, received {type(value).__name__}"):
        model(**{"input_ids": IDS, name: value})


def test_a_configuration_says_how_to_attend() -> None:
    assert xlmr_torch.XLMRobertaModel(small(attn_implementation="eager")).attn_implementation == "eager"
    config = small()
    config._attn_implementation = "eager"
    assert xlmr_torch.AutoModelForMaskedLM.from_config(config).attn_implementation == "eager"
    assert xlmr_torch.XLMRobertaModel(small()).attn_implementation == "sdpa"
    with pytest.raises(InputError, match=r"must be one of 'sdpa', 'eager', 'flash_attention_2', .*'flash'"):
        xlmr_torch.XLMRobertaModel(small(attn_implementation="flash"))


def test_labels_of_masked_positions_where_both_shapes_are_one(model: Any) -> None:
    """As many positions as columns: labels are those of the positions, in every backend and the reference."""
    positions = torch.tensor([[2, -1, 1, -1], [1, 2, 3, 0]])
    labels = torch.tensor([[7, 3, -100, 3], [4, -100, 5, 6]])
    params = {name: value.numpy() for name, value in model.state_dict().items()}
    wanted = reference.forward(
        model.config,
        "ForMaskedLM",
        params,
        input_ids=IDS.numpy(),
        masked_positions=positions.numpy(),
        labels=labels.numpy(),
    )
    loss = model(IDS, masked_positions=positions, labels=labels).loss
    everywhere = torch.full_like(IDS, -100)
    everywhere[[0, 1, 1, 1], [2, 1, 3, 0]] = torch.tensor([7, 4, 5, 6])
    torch.testing.assert_close(loss, model(IDS, labels=everywhere).loss)
    np.testing.assert_allclose(loss.item(), wanted.loss, rtol=1e-5)


@pytest.mark.parametrize("values, words", [(7, "received 7"), (0.5, "received 0.5"), (1j, "complex64")])
def test_masks_hold_zeros_and_ones(values: Any, words: str) -> None:
    model = xlmr_torch.XLMRobertaModel(small(is_decoder=True, add_cross_attention=True)).eval()
    mask = torch.full((2, 4), values)
    with pytest.raises(InputError, match=f"^attention_mask must .*{words}"):
        model(IDS, attention_mask=mask)
    states = torch.zeros(2, 4, 16)
    with pytest.raises(InputError, match=f"encoder_attention_mask must .*{words}"):
        model(IDS, encoder_hidden_states=states, encoder_attention_mask=mask)


def test_new_rows_differ_from_each_other(model: Any) -> None:
    old = model.get_input_embeddings().weight.detach().clone()
    new = model.resize_token_embeddings(40).weight.detach()[31:]
    assert len(new.unique(dim=0)) == 9
    torch.testing.assert_close(new, old.mean(0).expand(9, -1), rtol=0, atol=1e-4)


def test_a_bare_model_has_no_projection_to_replace() -> None:
    with pytest.raises(InputError, match="no vocabulary projection"):
        xlmr_torch.XLMRobertaModel(small()).set_output_embeddings(torch.nn.Linear(16, 31))


@pytest.mark.parametrize("fails_at", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "interrupted"]
)
def test_config_and_weights_change_together(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str, error: BaseException
) -> None:
    model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model.resize_token_embeddings(40)
    rename = atomic_files.os.replace

    def failing(source: Any, target: Any) -> None:
        if Path(target).name == fails_at:
            monkeypatch.setattr(atomic_files.os, "replace", rename)  # what is put back must go through
            raise error
        rename(source, target)

    monkeypatch.setattr(atomic_files.os, "replace", failing)
    with pytest.raises(CheckpointError if isinstance(error, OSError) else KeyboardInterrupt):
        model.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("old, new", [("1GB", "2KB"), ("2KB", "1GB"), ("2KB", "3KB")])
def test_shards_and_config_change_together(model: Any, tmp_path: Path, old: str, new: str) -> None:
    model.save_pretrained(tmp_path, max_shard_size=old)
    model.resize_token_embeddings(40)
    model.save_pretrained(tmp_path, max_shard_size=new)
    again = xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(tmp_path)
    torch.testing.assert_close(again(IDS).logits, model(IDS).logits, rtol=0, atol=0)


def test_pipeline_takes_the_published_arguments(model: Any, tmp_path: Path) -> None:
    from tests.core.tokenization_models import small_model

    (tmp_path / "sentencepiece.bpe.model").write_bytes(small_model())
    tokenizer = XLMRobertaTokenizerFast(vocab_file=str(tmp_path / "sentencepiece.bpe.model"))
    model.resize_token_embeddings(len(tokenizer))
    fill_mask = xlmr_torch.pipeline(
        None, model, None, tokenizer, framework=None, trust_remote_code=False, device_map="cpu"
    )
    assert fill_mask.task == "fill-mask"
    assert len(fill_mask("a <mask>")) == 5
    bare = xlmr_torch.pipeline(model=xlmr_torch.XLMRobertaModel(small()), tokenizer=tokenizer)
    assert bare.task == "feature-extraction"
    with pytest.raises(InputError, match="expected a task"):
        xlmr_torch.pipeline(model=torch.nn.Linear(2, 2), tokenizer=tokenizer)
    with pytest.raises(InputError, match="pass a tokenizer as tokenizer="):
        xlmr_torch.pipeline("fill-mask", model, tokenizer)


@pytest.mark.parametrize("device", ["meta", "hpu", "cuda:99", "no-such"])
def test_devices_where_no_model_runs(model: Any, tmp_path: Path, device: str) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="device"):
        xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(tmp_path, device=device)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int8", "no-such", torch.float8_e5m2])
def test_dtypes_in_which_no_model_computes(model: Any, tmp_path: Path, dtype: Any) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="dtype must be"):
        xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(tmp_path, dtype=dtype)
