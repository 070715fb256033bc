"""Changing a model: resizing, pruning, gradient checkpointing, freezing, precision, adapters."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

from tests.choice import chosen  # noqa: E402
from tests.tf.models import FAMILIES, VOCABULARY, Case, assert_close, each_family, gradients, same_outputs  # noqa: E402
from xlmr_core.errors import ConfigError, InputError  # noqa: E402


def values_of(model):
    return {name: model.get_values(name) for name in model.parameter_table()}


RESIZED = [
    ({"new_num_tokens": 50}, 50),
    ({"new_num_tokens": 20}, 20),
    ({"new_num_tokens": 50, "pad_to_multiple_of": 64}, 64),
    ({"new_num_tokens": 50, "mean_resizing": False}, 50),
    ({}, 41),
]
WAYS = [(family, tied) for family in FAMILIES for tied in (True, False)]
PRODUCT = [(way, asked) for way in WAYS for asked in RESIZED]


@pytest.mark.parametrize(("way", "asked"), chosen(PRODUCT, [(WAYS[n % 4], asked) for n, asked in enumerate(RESIZED)]))
def test_resize(way, asked, tmp_path):
    (family, tied), (arguments, rows) = way, asked
    case = Case(family, "ForMaskedLM")
    model = case.build(tie_word_embeddings=tied, num_hidden_layers=1)
    count, old = len(model.weights), values_of(model)
    embeddings = model.resize_token_embeddings(**arguments)
    assert embeddings is model.get_input_embeddings() and embeddings.input_dim == rows
    assert model.config.vocab_size == model.base_model.config.vocab_size == rows
    assert len(model.weights) == len(model.trainable_variables) == count
    kept = min(rows, VOCABULARY)
    for name, x in values_of(model).items():
        if "word_embeddings" in name or name in ("lm_head.bias", "lm_head.decoder.weight", "lm_head.decoder.bias"):
            assert x.shape[0] == rows, name
            np.testing.assert_array_equal(x[:kept], old[name][:kept])
            if x.ndim == 1:
                assert not x[kept:].any()
            elif arguments.get("mean_resizing", True):
                assert_close(x[kept:], np.broadcast_to(old[name].mean(0), (rows - kept, 16)), tolerance=1e-3)
            else:
                assert 0.01 < x[kept:].std() < 0.03
        else:
            np.testing.assert_array_equal(x, old[name])
    assert (model.get_output_embeddings() is embeddings) == tied
    inputs = {name: np.minimum(x, 19) for name, x in case.inputs().items()}
    output = model(inputs)
    assert output.logits.shape[-1] == rows
    model.save_pretrained(tmp_path)
    same_outputs(case.model_class.from_pretrained(tmp_path)(inputs), output, tolerance=0)


@pytest.mark.parametrize("rows", [0, 1, -3, 2.5, True])
def test_impossible_sizes(rows):
    model = Case("XLMRoberta", "Model").kept()
    with pytest.raises(InputError, match=r"new_num_tokens must be an integer above pad_token_id \(1\), received"):
        model.resize_token_embeddings(rows)
    with pytest.raises(InputError, match="pad_to_multiple_of must be a positive integer, received 0"):
        model.resize_token_embeddings(50, pad_to_multiple_of=0)


@each_family
def test_pruning_is_masking(family, tmp_path):
    """A model without heads gives the numbers of the whole one with these heads masked, and so does its checkpoint."""
    case = Case(family, "ForTokenClassification")
    heads = {0: [1], 1: [0, 2]}
    whole = case.build(num_attention_heads=4)
    mask = np.ones((2, 4), np.float32)
    for layer, gone in heads.items():
        mask[layer, gone] = 0
    inputs = case.inputs("full")
    expected = whole(inputs, head_mask=mask)
    count = len(whole.weights)
    whole.prune_heads({0: [1]})
    whole.prune_heads(heads)
    assert whole.config.pruned_heads == heads and len(whole.weights) == len(whole.trainable_variables) == count
    same_outputs(whole(inputs), expected)
    found = gradients(case, whole, {**inputs, **case.labels(inputs)})
    assert all(x.any() for name, x in found.items() if not name.endswith("key.bias"))
    whole.save_pretrained(tmp_path)
    same_outputs(case.model_class.from_pretrained(tmp_path)(inputs), expected)
    with pytest.raises(ConfigError):
        whole.prune_heads({0: [0, 2, 3]})


@pytest.mark.parametrize(
    ("family", "run"),
    chosen(
        [(family, run) for family in FAMILIES for run in ("eager", "function")],
        [("XLMRoberta", "function"), ("XLMRobertaXL", "eager")],
    ),
)
def test_recomputed_layers(family, run):
    """The same loss and gradients where dropout has to fall the same way twice, and without dropout."""
    case = Case(family, "ForTokenClassification")
    dropping = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
    for changes in chosen([{}, dropping], [dropping]):
        model = case.build(**changes)
        inputs = case.inputs()
        inputs.update(case.labels(inputs))
        names = [name for name, row in model.parameter_table().items() if row.tied_to is None]
        variables = [model.get_parameter(name).value for name in names]

        def step(model=model, inputs=inputs, variables=variables):
            with tf.GradientTape() as tape:
                loss = model(inputs, training=True).loss
            return loss, tape.gradient(loss, variables)

        def measured(step, model=model):
            for layer in model._flatten_layers():
                for seeds in layer._seed_generators:
                    seeds.state.assign([3, 4])
            loss, found = step()
            return [loss.numpy(), *(tf.convert_to_tensor(x).numpy() for x in found)]

        as_run = tf.function if run == "function" else lambda step: step
        expected = measured(as_run(step))
        model.gradient_checkpointing_enable()
        assert model.is_gradient_checkpointing
        again = as_run(step)
        found = measured(again)
        for name, one, other in zip(["loss", *names], found, expected, strict=True):
            assert_close(one, other, what=name)
        if changes:
            assert abs(measured(again)[0] - found[0]) < 1e-6
            first, second = again()[0], again()[0]
            assert abs(float(first - second)) > 1e-4, "dropout falls anew in each step"
        model.gradient_checkpointing_disable()
        assert not model.is_gradient_checkpointing


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float64"])
def test_set_dtype(dtype, tmp_path):
    case = Case("XLMRoberta", "ForMaskedLM")
    model = case.build()
    inputs = case.inputs()
    before, count = model(inputs).logits.numpy(), len(model.weights)
    assert model.set_dtype(dtype) is model
    policy = tf.keras.dtype_policies.get(dtype)
    assert model(inputs).logits.dtype == policy.compute_dtype
    assert {model.get_parameter(name).dtype for name in model.parameter_table()} == {policy.variable_dtype}
    assert len(model.weights) == len(model.trainable_variables) == count
    assert_close(model(inputs).logits, before.astype(np.float64), tolerance=5e-2)
    model.save_pretrained(tmp_path)
    same = case.model_class.from_pretrained(tmp_path, dtype=dtype)
    same_outputs(same(inputs), model(inputs), tolerance=0)
    model.set_dtype("float32")
    assert model(inputs).logits.dtype == "float32"
    with pytest.raises(InputError, match="dtype must be float32"):
        model.set_dtype("int8")


def test_adapters(tmp_path):
    case = Case("XLMRoberta", "ForSequenceClassification")
    model = case.build()
    inputs = case.inputs()
    before = model(inputs)
    assert model.enable_lora(2, lora_alpha=4) is model
    same_outputs(model(inputs), before)
    trained = {variable.name for variable in model.trainable_variables}
    assert {"lora_kernel_a", "lora_kernel_b"} <= trained
    assert len(model.trainable_variables) == 2 * 2 * 2 + 4, (
        "two adapters of two projections in two layers, and the head"
    )
    query = model.roberta.encoder.layer[0].attention.self.query
    query.lora_kernel_b.assign(tf.ones_like(query.lora_kernel_b))
    changed = model(inputs)
    assert np.abs(np.asarray(changed.logits - before.logits)).max() > 1e-3
    model.save_pretrained(tmp_path)
    same_outputs(case.model_class.from_pretrained(tmp_path)(inputs), changed)
    with pytest.raises(InputError, match="expected a model without adapters"):
        model.enable_lora(2)
    for targets, message in ((["query", "querry"], "received 'querry'; did you mean 'query'"), ([], "must name proj")):
        with pytest.raises(InputError, match=message):
            case.build().enable_lora(2, targets=targets)


def test_freezing():
    model = Case("XLMRoberta", "ForSequenceClassification").build()
    model.roberta.trainable = False
    assert len(model.trainable_variables) == 4
    assert model.num_parameters(only_trainable=True) == 16 * 16 + 16 + 3 * 16 + 3
    model.roberta.trainable = True
    model.roberta.encoder.layer[0].trainable = False
    assert len(model.weights) - len(model.trainable_variables) == 16
    tables = (VOCABULARY + 24 + 2) * 16
    assert model.num_parameters() - model.num_parameters(exclude_embeddings=True) == tables
    assert model.get_memory_footprint() == 4 * model.num_parameters()


def test_replacing_embeddings():
    case = Case("XLMRoberta", "ForMaskedLM")
    model = case.build()
    table = tf.keras.layers.Embedding(VOCABULARY, 16)
    table.build(None)
    model.set_input_embeddings(table)
    assert model.get_input_embeddings() is table
    with pytest.raises(InputError, match="has no vocabulary projection to replace"):
        Case("XLMRoberta", "Model").kept().set_output_embeddings(table)
