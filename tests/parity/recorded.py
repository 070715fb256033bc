"""The recorded Hugging Face fixtures: which calls they hold, and the parameters to make them with.

A folder's ``expected.npz`` has the inputs and outputs of one call under their published names, and those of further
calls under ``<call>__<name>``: each of these says only what differs from the first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.config import AutoConfig, XLMRobertaConfig
from xlmr_core.heads import head_of_class
from xlmr_core.reference import Inputs

__all__ = ["CALLS", "ELSEWHERE", "Call", "read_call", "read_parameters"]

# Folder -> its calls; the first is the unnamed one.
CALLS: dict[str, tuple[str, ...]] = {
    "hf/ForCausalLM": ("", "dec", "decpad"),
    "hf/ForCausalLM_cross": ("",),
    "hf/ForMaskedLM": ("",),
    "hf/ForMultipleChoice": ("",),
    "hf/ForQuestionAnswering": ("", "outofrange"),
    "hf/ForSequenceClassification": ("", "multi_label_classification", "regression"),
    "hf/ForTokenClassification": ("",),
    "hf/Model": ("", "nomask", "posids", "embeds", "mask3d", "headmask", "allmasked"),
    "hf_variants/ForCausalLM_relative_key_query": ("", "nocache"),
    "hf_variants/ForMaskedLM_bf16": ("",),
    "hf_variants/ForMaskedLM_fp16": ("",),
    "hf_variants/ForMaskedLM_small": ("",),
    "hf_variants/ForMaskedLM_untied": ("",),
    "hf_variants/ForSequenceClassification_1label": ("",),
    "hf_variants/Model_relative_key": ("",),
    "hf_variants/Model_relative_key_query": ("",),
    "hf_variants/Model_typevocab2_pad3": ("", "notypes"),
    "xl/ForCausalLM_cross": ("",),
    "xl/ForMaskedLM": ("",),
    "xl/ForSequenceClassification": ("",),
    "xl/Model": ("",),
}

# Folders without recorded outputs: other ways to store ForMaskedLM_small, for the tests of loading.
ELSEWHERE = (
    "hf_variants/ForMaskedLM_bf16_by_flax",
    "hf_variants/ForMaskedLM_bin_by_4.30",
    "hf_variants/ForMaskedLM_safetensors_by_flax",
    "hf_variants/ForMaskedLM_safetensors_by_tf",
)

# An input that takes another's place.
REPLACES = {"inputs_embeds": "input_ids"}
# A call that leaves an input out.
LEAVES_OUT = {"nomask": ("attention_mask",), "notypes": ("token_type_ids",)}
OUTPUTS = ("loss", "logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output")
SEQUENCES = ("hidden_states_", "attentions_", "cross_attentions_")


@dataclass(frozen=True)
class Call:
    """A recorded call.

    Attributes:
        config, head: the model.
        inputs: by published name.
        expected: outputs, flat (see ``compare.flatten``).
        where_BS: positions that are compared; ``None`` means all.
    """

    config: XLMRobertaConfig
    head: str
    inputs: dict[str, Any]
    expected: dict[str, NDArray[Any]]
    where_BS: NDArray[Any] | None

    def without_labels(self) -> Call:
        """The same call without labels and loss, which packing is free to pack."""
        labels = ("labels", "start_positions", "end_positions")
        inputs = {name: x for name, x in self.inputs.items() if name not in labels}
        return Call(
            self.config,
            self.head,
            inputs,
            {name: x for name, x in self.expected.items() if name != "loss"},
            self.where_BS,
        )


def read_call(folder: Path, call: str) -> Call:
    """One recorded call of a folder."""
    config = AutoConfig.from_pretrained(folder)
    assert config.architectures is not None
    head = head_of_class(config.architectures[0]).suffix
    with np.load(folder / "expected.npz") as file:
        stored = dict(file)
    if call in ("dec", "decpad"):
        return stepping_call(config, head, stored, call)
    # "nocache_logits" is named without the double underscore.
    stored = {name.replace("nocache_", "nocache__"): x for name, x in stored.items()}
    own = {name.removeprefix(f"{call}__"): x for name, x in stored.items() if call and name.startswith(f"{call}__")}
    inputs = {
        name: x
        for name, x in stored.items()
        if name in Inputs.__dataclass_fields__ and name not in LEAVES_OUT.get(call, ())
    }
    for name in own:
        inputs.pop(REPLACES.get(name, ""), None)
    inputs.update({name: x for name, x in own.items() if name in Inputs.__dataclass_fields__})
    if call in ("multi_label_classification", "regression"):
        config = config.copy(problem_type=call)
    found = own if call else stored
    expected = {name: x for name, x in found.items() if name in OUTPUTS or name.startswith(SEQUENCES)}
    assert expected, f"no outputs recorded for the call {call!r}"
    return Call(config, head, inputs, expected, stored.get("compare_mask"))


def stepping_call(config: XLMRobertaConfig, head: str, stored: dict[str, NDArray[Any]], call: str) -> Call:
    """Prompt and forced tokens in one go. ``dec`` was recorded token by token with a cache, ``decpad`` (row 1 left
    padded) also at once.
    """
    prompt, forced = stored[f"{call}_prompt"], stored["dec_forced"]
    inputs = {"input_ids": np.concatenate([prompt, forced], axis=1)}
    if call == "dec":
        return Call(config, head, inputs, {"logits": stored["dec_cached_logits"]}, None)
    mask = np.concatenate([stored["decpad_attention_mask"], np.ones_like(forced)], axis=1)
    # A left-padded query of a causal model sees no key.
    return Call(
        config, head, {**inputs, "attention_mask": mask}, {"logits": stored["decpad_full_logits"]}, mask.astype(bool)
    )


DTYPES: dict[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


def read_parameters(folder: Path) -> dict[str, NDArray[Any]]:
    """A ``model.safetensors`` as float32, read by its few lines of format so that this judge does not depend on the
    code it judges.
    """
    content = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        x = np.frombuffer(content[8 + size + begin : 8 + size + end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        # A bfloat16 is the upper half of a float32.
        arrays[name] = (x.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else x
    return arrays
