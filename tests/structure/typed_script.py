"""What a user writes in each backend, and what an editor has to know of it. Read by type checkers, never run.

A line with ``type: ignore`` is a mistake that has to be seen.
"""

from collections.abc import Iterator
from typing import Any, assert_type

import jax
import tensorflow as tf
import torch

import xlmr_flax
import xlmr_tf
import xlmr_torch
from xlmr_core import AutoConfig, XLMRobertaConfig
from xlmr_core.outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from xlmr_core.tasks.fill_mask import Candidate
from xlmr_core.tasks.multiple_choice import Choice
from xlmr_core.tasks.pipeline import Pipeline
from xlmr_core.tasks.text_generation import Generated
from xlmr_core.tasks.zero_shot import ZeroShotAnswer
from xlmr_core.tokenization import AutoTokenizer, BatchEncoding, XLMRobertaTokenizer, XLMRobertaTokenizerFast
from xlmr_flax.pipelines import FillMaskPipeline as FlaxFillMask
from xlmr_tf.pipelines import FillMaskPipeline as TFFillMask
from xlmr_torch.pipelines import FillMaskPipeline

# ---- Configurations and tokenizers

assert_type(AutoConfig.from_pretrained("xlmr-mini"), XLMRobertaConfig)
assert_type(XLMRobertaConfig.from_pretrained("xlmr-mini"), XLMRobertaConfig)
assert_type(XLMRobertaTokenizerFast.from_pretrained("xlmr-mini"), XLMRobertaTokenizerFast)
tokenizer = AutoTokenizer.from_pretrained("xlmr-mini")
assert_type(tokenizer, XLMRobertaTokenizer | XLMRobertaTokenizerFast)
inputs = tokenizer("a good day", return_tensors="pt")
assert_type(inputs, BatchEncoding)

# ---- PyTorch

torch_model = xlmr_torch.XLMRobertaForMaskedLM.from_pretrained("xlmr-mini", dtype="float32")
assert_type(torch_model, xlmr_torch.XLMRobertaForMaskedLM)
assert_type(torch_model.eval(), xlmr_torch.XLMRobertaForMaskedLM)
assert_type(torch_model.config, XLMRobertaConfig)
assert_type(torch_model.set_packing("never"), xlmr_torch.XLMRobertaForMaskedLM)
assert_type(xlmr_torch.optimize_for_inference(torch_model), xlmr_torch.XLMRobertaForMaskedLM)
torch_output = torch_model(**inputs, labels=torch.tensor([[0, 2]]))
assert_type(torch_output, MaskedLMOutput[torch.Tensor])
assert_type(torch_output.logits, torch.Tensor)
torch_output.loss.backward()
print(torch_output.lojits)  # type: ignore
torch_model(input_id=None)  # type: ignore
torch_loss, torch_logits = torch_model(**inputs, return_dict=False)
assert_type(torch_logits, Any)
assert_type(
    xlmr_torch.XLMRobertaXLModel.from_pretrained("xl", output_loading_info=True),
    tuple[xlmr_torch.XLMRobertaXLModel, dict[str, Any]],
)
assert_type(
    xlmr_torch.AutoModel.from_pretrained("xlmr-mini")(**inputs),
    BaseModelOutputWithPoolingAndCrossAttentions[torch.Tensor],
)
assert_type(
    xlmr_torch.AutoModelForCausalLM.from_pretrained("xlmr-mini")(**inputs),
    CausalLMOutputWithCrossAttentions[torch.Tensor],
)
assert_type(xlmr_torch.AutoModelForMaskedLM.from_pretrained("xlmr-mini")(**inputs), MaskedLMOutput[torch.Tensor])
assert_type(
    xlmr_torch.AutoModelForMultipleChoice.from_config(XLMRobertaConfig())(**inputs),
    MultipleChoiceModelOutput[torch.Tensor],
)
assert_type(xlmr_torch.AutoModelForQuestionAnswering.from_pretrained("xlmr-mini")(**inputs).end_logits, torch.Tensor)
assert_type(
    xlmr_torch.XLMRobertaForSequenceClassification(XLMRobertaConfig())(**inputs),
    SequenceClassifierOutput[torch.Tensor],
)
assert_type(
    xlmr_torch.XLMRobertaXLForTokenClassification.from_pretrained("xl")(**inputs),
    TokenClassifierOutput[torch.Tensor],
)
assert_type(xlmr_torch.pipeline("fill-mask"), FillMaskPipeline)
assert_type(xlmr_torch.pipeline(task="fill-mask", device=0)("<mask>")[0], Candidate)
assert_type(xlmr_torch.pipeline(model="xlmr-mini"), Pipeline)
xlmr_torch.pipeline("fill-mask")("<mask>", topk=3)  # type: ignore
assert_type(xlmr_torch.pipeline("zero-shot-classification", model="m")("a", ["b"]), ZeroShotAnswer)
assert_type(xlmr_torch.pipeline("multiple-choice", model="m")("a", ["b", "c"]), list[Choice])
assert_type(xlmr_torch.pipeline("text-classification", model="m")("a", text_pair="b", top_k=2), list[Any])
xlmr_torch.pipeline("text-classification", model="m")("a", tpo_k=2)  # type: ignore
assert_type(xlmr_torch.pipeline("text-generation", model="m")("a", typical_p=0.9), list[Generated])
assert_type(xlmr_torch.pipeline("translation", model="m")(iter("ab"), num_beams=2), Iterator[list[Any]])
xlmr_torch.pipeline("summarization", model="m")("a", return_full_text=True)  # type: ignore


class Embedder(xlmr_torch.XLMRobertaPreTrainedModel):
    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return input_ids


assert_type(Embedder.from_pretrained("xlmr-mini"), Embedder)

# ---- Keras

tf_model = xlmr_tf.TFXLMRobertaForMaskedLM.from_pretrained("xlmr-mini")
assert_type(tf_model, xlmr_tf.TFXLMRobertaForMaskedLM)
assert_type(tf_model.config, XLMRobertaConfig)
tf_output = tf_model(inputs, training=True)
assert_type(tf_output, MaskedLMOutput[tf.Tensor])
assert_type(tf_output.logits, tf.Tensor)
print(tf_output.lojits)  # type: ignore
assert_type(
    xlmr_tf.TFXLMRobertaXLModel.from_pretrained("xl", output_loading_info=True),
    tuple[xlmr_tf.TFXLMRobertaXLModel, dict[str, Any]],
)
assert_type(
    xlmr_tf.TFAutoModelForSequenceClassification.from_pretrained("xlmr-mini")(inputs),
    SequenceClassifierOutput[tf.Tensor],
)
assert_type(
    xlmr_tf.TFAutoModelForQuestionAnswering.from_config(XLMRobertaConfig())(inputs),
    QuestionAnsweringModelOutput[tf.Tensor],
)
assert_type(xlmr_tf.pipeline("fill-mask"), TFFillMask)

# ---- Flax

flax_model = xlmr_flax.FlaxXLMRobertaForMaskedLM.from_pretrained("xlmr-mini", dtype="float32")
assert_type(flax_model, xlmr_flax.FlaxXLMRobertaForMaskedLM)
assert_type(flax_model.config, XLMRobertaConfig)
flax_output = flax_model(**inputs, train=True)
assert_type(flax_output, MaskedLMOutput[jax.Array])
assert_type(flax_output.logits, jax.Array)
print(flax_output.lojits)  # type: ignore
assert_type(
    xlmr_flax.FlaxXLMRobertaModel.from_pretrained("xlmr-mini", _do_init=False),
    tuple[xlmr_flax.FlaxXLMRobertaModel, dict[str, Any]],
)
assert_type(
    xlmr_flax.FlaxAutoModelForTokenClassification.from_pretrained("xlmr-mini")(**inputs),
    TokenClassifierOutput[jax.Array],
)
assert_type(
    xlmr_flax.FlaxAutoModelForSequenceClassification.from_config(XLMRobertaConfig())(**inputs),
    SequenceClassifierOutput[jax.Array],
)
assert_type(xlmr_flax.pipeline("fill-mask"), FlaxFillMask)
