"""Published methods of a TensorFlow model that other code calls, beside those that have a file of their own.

docs/keras.md lists all published methods, and says of each that is not there why.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.heads import Head, LossKind
from xlmr_core.outputs import ModelOutput
from xlmr_tf.losses import cross_entropy, sequence_losses

__all__ = ["PublishedNames"]


class PublishedNames:
    """The part of a model that answers to published names; a base before ``keras.Model``."""

    config: XLMRobertaConfig
    call_signature_parameters: list[str]
    framework: ClassVar[str] = "tf"
    _task_head: ClassVar[Head]

    @classmethod
    def can_generate(cls) -> bool:
        """Whether there is a ``generate`` that continues texts."""
        return False

    # ---- Inputs and outputs

    @property
    def input_signature(self) -> dict[str, tf.TensorSpec]:
        """The inputs by name, as ``tf.TensorSpec``: int32, every size free."""
        sizes = [None] * (3 if self._task_head.loss is LossKind.CHOICE else 2)
        names = ("input_ids", "attention_mask", "token_type_ids")
        return {name: tf.TensorSpec(sizes, tf.int32, name) for name in names}

    @property
    def dummy_inputs(self) -> dict[str, tf.Tensor]:
        """Inputs that the model takes: one text of two tokens."""
        inputs = {
            name: (tf.zeros if name == "token_type_ids" else tf.ones)((1, *[2] * (spec.shape.rank - 1)), spec.dtype)
            for name, spec in self.input_signature.items()
        }
        if self.config.add_cross_attention and "encoder_hidden_states" in self.call_signature_parameters:
            inputs["encoder_hidden_states"] = tf.ones((1, 2, self.config.hidden_size))
        return inputs

    def serving_output(self, output: Any) -> Any:
        """An output with states and probabilities only if the config asks for them, each one tensor (layers, ...), and
        without a cache.
        """
        if not isinstance(output, ModelOutput):
            return output
        wanted = {
            "hidden_states": self.config.output_hidden_states,
            "attentions": self.config.output_attentions,
            "cross_attentions": self.config.output_attentions and self.config.add_cross_attention,
            "past_key_values": False,
        }
        kept = {name: value for name, value in output.items() if wanted.get(name, True)}
        return type(output)({name: tf.stack(x) if isinstance(x, tuple) else x for name, x in kept.items()})

    def serving(self, inputs: dict[str, tf.Tensor]) -> Any:
        """The answer to inputs by name, as it is served."""
        return self.serving_output(self(inputs))  # type: ignore[operator]

    def get_head_mask(self, head_mask: tf.Tensor | None, num_hidden_layers: int) -> Any:
        """(layers, 1, N, 1, 1): factors of heads for every layer, of (N,) or (layers, N); without any a list of
        ``None``.
        """
        if head_mask is None:
            return [None] * num_hidden_layers
        head_mask = tf.cast(head_mask, tf.float32)
        if head_mask.shape.rank not in (1, 2):
            raise InputError(
                f"head_mask must have one or two axes, (heads,) or (layers, heads), received {head_mask.shape}"
            )
        head_mask = tf.broadcast_to(head_mask, (num_hidden_layers, head_mask.shape[-1]))
        return head_mask[:, None, :, None, None]

    # ---- The vocabulary projection

    def get_lm_head(self) -> keras.layers.Layer | None:
        """The head that predicts tokens; ``None`` for a model without one."""
        return getattr(self, "lm_head", None)

    def get_output_layer_with_bias(self) -> keras.layers.Layer | None:
        """The older name of :meth:`get_lm_head`."""
        return self.get_lm_head()

    def get_bias(self) -> dict[str, keras.Variable] | None:
        """``{"bias": variable}`` of the head that predicts tokens; ``None`` for a model without one."""
        head = self.get_lm_head()
        return None if head is None else {"bias": head.bias}

    def set_bias(self, value: dict[str, Any]) -> None:
        """Put the values of a ``{"bias": values}`` (V,) in the place of the head's; nothing in a model without one."""
        if self.get_lm_head() is not None:
            self.set_output_bias(value["bias"])  # type: ignore[attr-defined]

    # ---- Losses

    def get_label_to_output_name_mapping(self) -> dict[str, str]:
        """Which output belongs to which label, where a model has several."""
        if self._task_head.loss is not LossKind.SPAN:
            return {}
        return {name: name.replace("positions", "logits") for name in self._task_head.labels}

    def hf_compute_loss(self, labels: Any, logits: Any) -> tf.Tensor:
        """The published loss of logits that are there already: where labels are of tokens one number, (1,), else one a
        row, (B,). ``model(..., labels=...).loss`` is the mean.

        Args:
            labels: as of a call; for answers ``{"start_position": ..., "end_position": ...}``. Of next tokens those
                that the logits predict, shifted already.
            logits: as a call returns them; for answers those of start and of end.

        Raises:
            InputError: for a model without a loss of its own.
        """
        kind = self._task_head.loss
        if kind is LossKind.SEQUENCE:
            losses = sequence_losses(self.config, logits, tf.convert_to_tensor(labels))
            return losses if losses.shape.rank == 1 else tf.reduce_mean(losses, -1)
        if kind is LossKind.CHOICE:
            return _by_row(logits, labels)
        if kind is LossKind.SPAN:
            start, end = logits
            return (_by_row(start, labels["start_position"]) + _by_row(end, labels["end_position"])) / 2
        if kind is LossKind.NONE:
            raise InputError(
                f"expected a head with a loss, such as TFXLMRobertaForMaskedLM, received {type(self).__name__}; "
                "compute it from the model's outputs"
            )
        flat = tf.reshape(logits, (-1, logits.shape[-1]))
        return tf.reshape(cross_entropy(flat, tf.reshape(labels, (-1,))), (1,))


def _by_row(logits_BK: tf.Tensor, labels: Any) -> tf.Tensor:
    """(B,): the negative log-likelihood of each row's label."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.reshape(labels, (-1,)), logits=logits_BK)
