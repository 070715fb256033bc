"""Wrong inputs of models, in the three backends, eagerly and in graphs: part of ``nox -s fuzz``.

A right call of a head is drawn, and one or two of its inputs are changed: another shape, another dtype, values out of
range, another way to lie in memory, no tensor at all. Either the call is refused in a sentence, or its numbers are
those of ``xlmr_core.reference`` for the same values. In graphs, where values are the caller's contract, values stay.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.parity.adapters import Mode
from tests.parity.cases import CROSS, SMALL
from tests.parity.compare import assert_close, flatten
from tests.parity.weights import draw_parameters
from xlmr_core import reference
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.heads import HEADS

Array = NDArray[Any]
TOLERANCE = 1e-4
BATCH, CHOICES, LENGTH, MEMORY = 2, 3, 6, 5


def config_of(head: str) -> XLMRobertaConfig:
    more = CROSS if head == "ForCausalLM" else {"num_labels": 2} if head == "ForQuestionAnswering" else {}
    return XLMRobertaConfig(**{**SMALL, "type_vocab_size": 2, **more})


@cache
def params_of(head: str) -> dict[str, Array]:
    return draw_parameters(config_of(head), head, 0)


# ---- A right call


def right(head: str, rng: np.random.Generator) -> dict[str, Array]:
    """Inputs that every backend takes."""
    config = config_of(head)
    shape = (BATCH, CHOICES, LENGTH) if head == "ForMultipleChoice" else (BATCH, LENGTH)
    mask = np.ones(shape, np.int64)
    mask[-1, ..., 4:] = 0
    ids = np.where(mask == 1, rng.integers(4, config.vocab_size, shape), config.pad_token_id)
    given: dict[str, Array] = {"input_ids": ids, "attention_mask": mask}
    if rng.random() < 0.2:
        given["inputs_embeds"] = 0.1 * rng.standard_normal((*shape, config.hidden_size)).astype(np.float32)
        del given["input_ids"]
    for name, high in (("token_type_ids", 2), ("position_ids", LENGTH)):
        if rng.random() < 0.3:
            given[name] = rng.integers(0, high, shape)
    if rng.random() < 0.2:
        given["head_mask"] = rng.integers(0, 2, (config.num_hidden_layers, config.num_attention_heads)).astype(
            np.float32
        )
    if head == "ForCausalLM" and rng.random() < 0.5:
        given["encoder_hidden_states"] = rng.standard_normal((BATCH, MEMORY, config.hidden_size)).astype(np.float32)
        given["encoder_attention_mask"] = np.ones((BATCH, MEMORY), np.int64)
    if rng.random() < 0.5:
        given |= labels(head, config, mask, rng)
    return given


def labels(head: str, config: XLMRobertaConfig, mask: Array, rng: np.random.Generator) -> dict[str, Array]:
    if head == "Model":
        return {}
    if head == "ForQuestionAnswering":
        return {f"{end}_positions": rng.integers(0, 4, BATCH) for end in ("start", "end")}
    if head in ("ForMaskedLM", "ForCausalLM", "ForTokenClassification"):
        classes = config.num_labels if head == "ForTokenClassification" else config.vocab_size
        return {"labels": np.where(mask == 1, rng.integers(0, classes, mask.shape), -100)}
    return {"labels": rng.integers(0, 3, BATCH)}


# ---- What is done to it

SHAPES: dict[str, Callable[[Array], Array]] = {
    "a column less": lambda x: x[..., :-1],
    "a column more": lambda x: np.concatenate((x, x[..., -1:]), -1),
    "a row less": lambda x: x[:-1],
    "a row more": lambda x: np.concatenate((x, x[-1:])),
    "one row": lambda x: x[:1],
    "one column": lambda x: x[..., :1],
    "no row": lambda x: x[:0],
    "no column": lambda x: x[..., :0],
    "an axis less": lambda x: x[0] if len(x) else x,
    "an axis more": lambda x: x[None],
    "an axis between": lambda x: x[:, None],
    "no axis": lambda x: x.reshape(-1)[0] if x.size else x,
    "flat": lambda x: x.reshape(-1),
    "transposed": lambda x: x.T,
    "too long": lambda x: np.concatenate([x] * 12, -1),
    "many rows": lambda x: np.concatenate([x] * 40),
}
DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint64", "float16", "float32", "float64"),
    *("complex64", "str", "object"),
)
VALUES = (-1, -100, 2, 3, 60, 61, 255, 2**31, -(2**40), 0.5, float("nan"), float("inf"), 1e15)
NO_TENSORS: dict[str, Callable[[Array], Any]] = {
    "a list": lambda x: x.tolist(),
    "a text": lambda _: "Hello",
    "texts": lambda _: ["Hello", "world"],
    "a number": lambda _: 3,
    "a dictionary": lambda x: {"input_ids": x},
    "a tuple": lambda x: tuple(x) if x.ndim else (x,),
    "nothing": lambda _: None,
}


def changed(x: Array, rng: np.random.Generator, values: bool) -> Any:
    """An input that is mostly wrong."""
    kind = rng.integers(10)
    if kind < 4:
        if x.ndim == 0:
            return x[None]
        return list(SHAPES.values())[rng.integers(len(SHAPES))](x)
    if kind < 7:
        with np.errstate(all="ignore"):
            return x.astype(DTYPES[rng.integers(len(DTYPES))])
    if kind < 9 and values:
        value = VALUES[rng.integers(len(VALUES))]
        if x.size:
            x = x.astype(np.float64) if isinstance(value, float) and x.dtype.kind in "iu" else x.copy()
            with np.errstate(all="ignore"):
                x.reshape(-1)[rng.integers(x.size)] = np.asarray(value).astype(x.dtype)
        return x
    return list(NO_TENSORS.values())[rng.integers(len(NO_TENSORS))](x)


# ---- Backends: a name, how a tensor may lie, and a call

Calls = Callable[[Any, dict[str, Any], np.random.Generator], Any]


@cache
def model_of(backend: str, head: str) -> Any:
    adapter = importlib.import_module(f"tests.parity.adapter_{backend}")
    return adapter.build(config_of(head), head, params_of(head), Mode(backend, "sdpa", False), "float32").model


def is_number(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic) and x.dtype.kind in "biufc"


def torch_eager(model: Any, given: dict[str, Any], rng: np.random.Generator) -> Any:
    import torch

    lies = (
        lambda t: t,
        lambda t: torch.stack((t, t), -1)[..., 0],
        lambda t: t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() else t,
        lambda t: torch.cat((t.reshape(-1)[:1], t.reshape(-1)))[1:].view(t.shape) if t.numel() else t,
        lambda t: t.clone().requires_grad_() if t.dtype.is_floating_point else t,
        lambda t: t.to_sparse() if t.dim() else t,
        lambda t: torch.nested.nested_tensor(list(t)) if t.dim() > 1 and t.numel() else t,
    )
    tensors = {name: torch.from_numpy(np.asarray(x)) if is_number(x) else x for name, x in given.items()}
    if rng.random() < 0.5:
        name = list(tensors)[rng.integers(len(tensors))]
        if isinstance(tensors[name], torch.Tensor) and tensors[name].dtype not in (torch.uint16, torch.uint64):
            tensors[name] = lies[rng.integers(len(lies))](tensors[name])
    if rng.random() < 0.3:  # parameters too
        for parameter in model.parameters():
            parameter.data = lies[rng.integers(1, 3)](parameter.data)
    with torch.set_grad_enabled(bool(rng.integers(2))):
        return {name: x.detach() for name, x in model(**tensors).items() if hasattr(x, "detach")}


def torch_compiled(model: Any, given: dict[str, Any], rng: np.random.Generator) -> Any:
    import torch

    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", dynamic=bool(rng.integers(2)))
    return torch_eager(compiled, given, rng)


def tf_eager(model: Any, given: dict[str, Any], rng: np.random.Generator) -> Any:
    import tensorflow as tf

    lies = (tf.constant, tf.Variable, tf.RaggedTensor.from_tensor, tf.sparse.from_dense, np.asfortranarray, np.asarray)
    tensors = {name: tf.constant(x) if is_number(x) else x for name, x in given.items()}
    if rng.random() < 0.3:
        name = list(given)[rng.integers(len(given))]
        if is_number(given[name]) and np.ndim(given[name]) > 1:
            tensors[name] = lies[rng.integers(len(lies))](given[name])
    return tensors_of_tf(model(**tensors))


def tf_graph(model: Any, given: dict[str, Any], rng: np.random.Generator) -> Any:
    import tensorflow as tf

    tensors = {name: tf.constant(x) for name, x in given.items() if is_number(x)}
    others = {name: x for name, x in given.items() if not is_number(x)}
    known = rng.random(8) < 0.3
    specs = {
        name: tf.TensorSpec(
            [
                size if name == "head_mask" or (axis == 2 and "_" in name) or known[axis] else None
                for axis, size in enumerate(x.shape)
            ],
            x.dtype,
        )
        for name, x in tensors.items()
    }
    try:
        return tensors_of_tf(tf.function(lambda given: model(**given, **others), input_signature=[specs])(tensors))
    except tf.errors.InvalidArgumentError as error:
        if " must " in error.message or "expected" in error.message:  # an assertion of ours, in the graph
            raise InputError(error.message[:500]) from error
        raise


def tensors_of_tf(output: Any) -> dict[str, Any]:
    return {name: x.numpy() for name, x in output.items() if hasattr(x, "numpy")}


def flax_eager(model: Any, given: dict[str, Any], rng: np.random.Generator) -> Any:
    import jax.numpy as jnp

    # JAX itself cuts off what is more than 32 bits, without a word.
    def to_jax(x: Array) -> Any:
        return jnp.asarray(x) if np.array_equal(jnp.asarray(x), x, equal_nan=x.dtype.kind == "f") else x

    lies = (to_jax, np.asfortranarray, lambda x: x[..., ::-1].copy()[..., ::-1], np.asarray)
    chosen = {name: lies[rng.integers(len(lies))](x) if is_number(x) and np.ndim(x) else x for name, x in given.items()}
    return {name: np.asarray(x) for name, x in model(**chosen).items() if hasattr(x, "shape")}


def flax_jit(model: Any, given: dict[str, Any], rng: np.random.Generator) -> Any:
    import jax

    arrays = {name: x for name, x in given.items() if is_number(x)}
    others = {name: x for name, x in given.items() if not is_number(x)}

    def run(arrays: dict[str, Any]) -> dict[str, Any]:
        return {name: x for name, x in model(**arrays, **others).items() if hasattr(x, "shape")}

    return {name: np.asarray(x) for name, x in jax.jit(run)(arrays).items()}


# ---- An attempt


@dataclass(frozen=True)
class Kind:
    """Calls of one backend, of one way to run them.

    Attributes:
        backend: as in ``tests/parity/adapter_<backend>.py``.
        call: runs a model.
        values: whether values may be wrong too.
    """

    backend: str
    call: Calls
    values: bool

    def prepare(self) -> None:
        """Import and build what all attempts share."""
        for head in HEADS:
            model = model_of(self.backend, head)
        self.call(model, right(head, np.random.default_rng(0)), np.random.default_rng(0))

    def __call__(self, seed: int, folder: Path) -> None:
        """Draw a call, change it, and look at what comes of it."""
        rng = np.random.default_rng(seed)
        head = list(HEADS)[rng.integers(len(HEADS))]
        given: dict[str, Any] = right(head, rng)
        for _ in range(rng.integers(1, 3)):
            name = list(given)[rng.integers(len(given))]
            if isinstance(given[name], np.ndarray | np.generic):
                given[name] = changed(np.asarray(given[name]), rng, self.values)
        model = model_of(self.backend, head)
        model.set_packing(("auto", "never")[rng.integers(2)])
        told = {
            name: f"{x.shape} {x.dtype}" if isinstance(x, np.ndarray) else repr(x)[:40] for name, x in given.items()
        }
        found = self.call(model, given, rng)
        compare(head, given, {name: np.asarray(x) for name, x in found.items()}, f"{head} {told}", self.values)


def compare(head: str, given: dict[str, Any], found: dict[str, Array], told: str, values: bool) -> None:
    """What was accepted has the numbers of the reference; with ``values`` false, values are the caller's to look at."""
    same = {name: np.asarray(x) for name, x in given.items() if x is not None}
    for name, x in same.items():
        if x.dtype == bool or x.dtype.kind == "u":
            same[name] = x.astype(np.int64)
    try:
        with np.errstate(all="ignore"):
            expected = flatten(reference.forward(config_of(head), head, params_of(head), **same))
    except Exception as error:
        if not values and isinstance(error, InputError) and "must lie between" in str(error):
            return
        raise AssertionError(f"accepted {told}; the reference: {type(error).__name__} {error}") from error
    wanted = {name: x for name, x in expected.items() if not name.startswith(("hidden_states", "attentions", "cross"))}
    mask = same.get("attention_mask")
    where = None if mask is None or mask.ndim == 3 != (head == "ForMultipleChoice") else mask != 0
    for name in [name for name, x in wanted.items() if np.isnan(x).any()]:
        assert np.isnan(found[name]).any(), f"{name} is a number, the reference says NaN: {told}"
        del wanted[name]
    try:
        assert_close(head, found, wanted, TOLERANCE, where)
    except AssertionError as error:
        raise AssertionError(f"{told}: {error}") from error


KINDS = {
    "inputs of PyTorch": Kind("torch", torch_eager, True),
    "inputs of PyTorch, compiled": Kind("torch", torch_compiled, False),
    "inputs of Keras": Kind("tf", tf_eager, True),
    "inputs of Keras, in graphs": Kind("tf", tf_graph, False),
    "inputs of Flax": Kind("flax", flax_eager, True),
    "inputs of Flax, jitted": Kind("flax", flax_jit, False),
}
