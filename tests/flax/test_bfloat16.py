"""Half precision: what is multiplied is narrow, what is added up is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402

from tests.flax import models  # noqa: E402
from xlmr_flax import linear  # noqa: E402

SIZES = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4}


def states(family: str, dtype: str, params: Any = None, layers: int = 4, **asked: Any) -> Any:
    sizes = {**SIZES, "num_hidden_layers": layers}
    model = models.model("Model", family, dtype=dtype, initializer_range=0.08, **sizes)
    return model(**models.batch((40, 23, 31)), params=params, **asked)


def error(family: str, dtype: str) -> float:
    found, expected = (states(family, name).last_hidden_state.astype(jnp.float32) for name in (dtype, "float32"))
    return float(jnp.abs(found - expected).mean() / jnp.abs(expected).mean())


def test_the_error_is_less_than_with_narrow_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of bfloat16, against the same model whose residual is rounded after each block, as it once was."""
    found = error("XLMRoberta", "bfloat16")
    wide = linear.Linear.wide

    def rounded(self: Any, x: Any) -> Any:
        return wide(self, x).astype(jnp.bfloat16)

    normed = linear.LayerNorm.__call__

    def narrow(self: Any, x: Any) -> Any:
        return normed(self, x.astype(jnp.bfloat16))

    jax.clear_caches()
    monkeypatch.setattr(linear.Linear, "wide", rounded)
    monkeypatch.setattr(linear.LayerNorm, "__call__", narrow)
    once = error("XLMRoberta", "bfloat16")
    jax.clear_caches()
    assert found < 0.006, found
    assert found < 0.75 * once, (found, once)


@pytest.mark.parametrize(("family", "dtype"), [("XLMRoberta", "bfloat16"), ("XLMRobertaXL", "float16")])
def test_what_goes_out_has_the_dtype_of_the_model(family: str, dtype: str) -> None:
    output = states(family, dtype, layers=1, output_hidden_states=True)
    assert {x.dtype for x in (output.last_hidden_state, output.pooler_output, *output.hidden_states)} == {
        jnp.dtype(dtype)
    }
    assert (output.hidden_states[-1] == output.last_hidden_state).all()
    cache = models.model("ForCausalLM", family, dtype=dtype, is_decoder=True, num_hidden_layers=1)
    held = cache(**models.batch((5, 3)), past_key_values=cache.init_cache(2, 8)).past_key_values
    assert held.layers[0].key_BNMH.dtype == jnp.dtype(dtype)


def test_products_are_narrow() -> None:
    """All but the softmax's; else a model in half precision would not be faster."""
    model, given = models.model("Model", dtype="bfloat16", **SIZES), models.batch((64, 64))
    program = jax.jit(lambda params: model(**given, params=params).last_hidden_state).lower(model.params).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert len(products) >= 4 * 8 and all(": (tensor<" in line and line.count("xbf16>") >= 2 for line in products)
    np.testing.assert_equal(len([line for line in products if "xf32>, tensor" in line]), 0)
