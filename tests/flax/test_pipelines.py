"""``pipeline`` in Flax: the recorded calls, the ways to name a model, and the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import jax.numpy as jnp
import pytest

from tests.attention import check_attentions
from tests.recorded_calls import assert_same, read_calls
from xlmr_core.errors import InputError
from xlmr_flax import FlaxAutoModelForMaskedLM, pipeline
from xlmr_flax.pipelines import FillMaskPipeline

TEXTS = ["The weather in <mask> is cold.", "<mask>", "Je <mask> une <mask>."]


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "fixtures" / "tasks" / "fill_mask"


@pytest.fixture(scope="module")
def fill(folder):
    return pipeline("fill-mask", model=folder)


def test_attention_is_that_of_the_reference(fill, folder):
    check_attentions(fill, folder)


@pytest.mark.parametrize("packing", ["auto", "never"])
def test_recorded_calls(packing, fill, folder):
    fill.model.set_packing(packing)
    calls = read_calls(folder)
    assert len(calls) == 50
    for call in calls[:: 4 if packing == "auto" else 25]:  # each number of masks is a program, padded each length too
        filler = fill
        if call["kwargs_init"]:
            filler = pipeline(task="fill-mask", model=fill.model, tokenizer=fill.tokenizer, **call["kwargs_init"])
        if isinstance(call["output"], dict):
            with pytest.raises(InputError):
                filler(*call["args"], **call["kwargs_call"])
        else:
            assert_same(filler(*call["args"], **call["kwargs_call"]), call["output"])


def test_answers_do_not_depend_on_the_batch(fill):
    fill.model.set_packing("auto")
    alone = [fill(text) for text in TEXTS]
    assert_same(fill(TEXTS, batch_size=3), alone)


def test_a_model_in_training_answers_without_dropout(fill, folder):
    model = FlaxAutoModelForMaskedLM.from_pretrained(folder)
    model.train()
    assert_same(pipeline(model=model, framework="flax")(TEXTS), fill(TEXTS))
    assert_same(FillMaskPipeline(model, fill.tokenizer)(TEXTS), fill(TEXTS))
    assert type(fill) is FillMaskPipeline and (fill.task, fill.device.platform) == ("fill-mask", "cpu")


def test_dtype_and_mistakes(folder, fill):
    assert pipeline("fill-mask", model=folder, dtype="bfloat16", device="cpu").model.dtype == jnp.bfloat16
    with pytest.raises(
        InputError, match="in xlmr_flax framework must be 'flax', received 'pt'; import pipeline from xlmr_torch"
    ):
        pipeline("fill-mask", model=folder, framework="pt")
    with pytest.raises(InputError, match=r"device 0 asks for an accelerator, JAX sees .*cpu.* here; pass device='cpu'"):
        pipeline("fill-mask", model=folder, device=0)
    with pytest.raises(InputError, match=r"device 'gpu:9' asks for a GPU, JAX sees"):
        pipeline("fill-mask", model=folder, device_map={"": "gpu:9"})
    with pytest.raises(InputError, match="stays where and as it is"):
        pipeline("fill-mask", model=fill.model, device="cpu")
    with pytest.raises(InputError, match="stays where and as it is, received torch_dtype='float16'"):
        pipeline("fill-mask", model=fill.model, torch_dtype="float16")
    # As in from_pretrained: dtype is of what is computed, torch_dtype of the parameters.
    half = pipeline("fill-mask", model=folder, torch_dtype="float16", device_map="cpu").model
    assert half.dtype == jnp.float32 and half.get_input_embeddings().embedding[...].dtype == jnp.float16


def test_the_command_line_answers_like_the_pipeline(fill, folder):
    command = ["-m", "xlmr_core", "run", "--task", "fill-mask", "--model", str(folder), "--backend", "flax"]
    done = subprocess.run(
        [sys.executable, *command, "--format", "json", TEXTS[0]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[0])
    found = answer if isinstance(answer, list) else next(x for x in answer.values() if isinstance(x, list))
    assert_same(found, fill(TEXTS[0]))
