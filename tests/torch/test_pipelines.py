"""``pipeline`` in PyTorch: the recorded calls, the ways to name a model, and the command line on a real checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.attention import check_attentions
from tests.recorded_calls import assert_same, read_calls
from xlmr_core.errors import InputError, ModelNotFoundError, XLMRError
from xlmr_torch import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    XLMRobertaForMaskedLM,
    XLMRobertaForTokenClassification,
    pipeline,
)
from xlmr_torch.pipelines import FillMaskPipeline
from xlmr_torch.placement import find_device, find_dtype

GPU = torch.cuda.is_available()


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "fixtures" / "tasks" / "fill_mask"


@pytest.fixture(scope="module")
def calls(folder):
    calls = read_calls(folder)
    assert len(calls) == 50
    return calls


@pytest.fixture(scope="module")
def fill(folder):
    return pipeline("fill-mask", model=folder)


@pytest.mark.parametrize("number", range(50))
@pytest.mark.parametrize("packing", ["always", "never"])
def test_recorded_call(number, packing, calls, fill, folder):
    call = calls[number]
    fill.model.set_packing(packing)
    if call["kwargs_init"]:
        fill = pipeline(task="fill-mask", model=fill.model, tokenizer=fill.tokenizer, **call["kwargs_init"])
    if isinstance(call["output"], dict):
        with pytest.raises(InputError):
            fill(*call["args"], **call["kwargs_call"])
    else:
        assert_same(fill(*call["args"], **call["kwargs_call"]), call["output"])


TEXTS = ["The weather in <mask> is cold.", "<mask>", "Je <mask> une <mask>."]


def test_attention_is_that_of_the_reference(fill, folder):
    check_attentions(fill, folder)


def test_the_vocabulary_projection_runs_at_the_masks_only(fill):
    seen = []
    hook = fill.model.lm_head.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].numel() // inputs[0].shape[-1])
    )
    fill(TEXTS, batch_size=3)
    hook.remove()
    assert len(seen) == 1
    assert seen[0] <= 6  # (B, P) with padding; 30 tokens went in


def test_answers_do_not_depend_on_the_batch(fill):
    alone = [fill(text) for text in TEXTS]
    for size in (1, 2, 3, 8):
        assert_same(fill(TEXTS, batch_size=size), alone)


def test_a_model_in_training_is_put_into_evaluation_mode(fill, folder):
    model = AutoModelForMaskedLM.from_pretrained(folder).train()
    again = pipeline("fill-mask", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
    assert_same(again(TEXTS), fill(TEXTS))


def test_a_model_brings_its_tokenizer_by_its_name(fill, folder):
    model = XLMRobertaForMaskedLM.from_pretrained(folder)
    assert_same(pipeline("fill-mask", model=model)(TEXTS[0]), fill(TEXTS[0]))
    model.name_or_path = ""
    with pytest.raises(InputError, match="does not say where its tokenizer is; pass tokenizer="):
        pipeline("fill-mask", model=model)


def test_the_sentencepiece_tokenizer_answers_alike(fill, folder):
    slow = pipeline("fill-mask", model=str(folder), use_fast=False)
    assert type(slow.tokenizer).__name__ == "XLMRobertaTokenizer"
    assert [c["token"] for c in slow(TEXTS[0])] == [c["token"] for c in fill(TEXTS[0])]


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_dtype(fill, folder, name, dtype):
    narrow = pipeline("fill-mask", model=folder, **{name: dtype})
    assert narrow.model.dtype == torch.bfloat16
    exact = fill(TEXTS[0], top_k=1002)
    got = {c["token"]: c["score"] for c in narrow(TEXTS[0], top_k=1002)}
    assert 0 < max(abs(got[c["token"]] - c["score"]) for c in exact) < 0.02
    assert pipeline("fill-mask", model=narrow.model, dtype="float32").model.dtype == torch.float32


def test_the_published_class_takes_a_model_and_its_tokenizer(fill):
    assert type(fill) is FillMaskPipeline and (fill.task, FillMaskPipeline.task) == ("fill-mask", "fill-mask")
    again = FillMaskPipeline(fill.model, fill.tokenizer, top_k=2)
    assert again.model is fill.model and again.tokenizer is fill.tokenizer
    assert_same(again(TEXTS[0]), fill(TEXTS[0], top_k=2))
    with pytest.raises(ImportError, match="NoSuchPipeline"):
        from xlmr_torch.pipelines import NoSuchPipeline  # noqa: F401


def test_another_model_takes_the_place(fill, folder):
    again = pipeline("fill-mask", model=folder)
    again.model = torch.compile(again.model, backend="eager")
    assert_same(again(TEXTS[0]), fill(TEXTS[0]))


def test_half_precision_is_answered_in_float32(folder):
    scores = [c["score"] for c in pipeline("fill-mask", model=folder, dtype="float16")("<mask>", top_k=1002)]
    assert abs(sum(scores) - 1) < 1e-5
    assert all(float(np.float16(score)) != score for score in scores[:5])


@pytest.mark.parametrize("device", [None, "cpu", -1, torch.device("cpu")])
def test_the_cpu_by_all_its_names(folder, device):
    assert pipeline("fill-mask", model=folder, device=device).device == torch.device("cpu")
    assert pipeline("fill-mask", model=folder, device_map=device).device == torch.device("cpu")


@pytest.mark.skipif(not GPU, reason="needs a CUDA GPU")
@pytest.mark.parametrize("device", [0, "cuda", "cuda:0"])
def test_the_gpu_by_all_its_names(fill, folder, device):
    on_gpu = pipeline("fill-mask", model=folder, device=device)
    assert on_gpu.device == torch.device("cuda:0")
    assert_same(on_gpu(TEXTS), fill(TEXTS))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (99, "asks for a CUDA GPU, PyTorch sees .* here; pass device='cpu'"),
        ("cuda:99", "'cuda:99' asks for"),
        ("gpu", "received 'gpu'"),
    ],
)
def test_a_device_that_is_not_there_is_refused(device, message):
    with pytest.raises(InputError, match=message):
        find_device(device)


@pytest.mark.parametrize("dtype", ["int64", torch.int32, "half precision", "nn", 16])
def test_a_dtype_without_a_point_is_refused(dtype):
    with pytest.raises(InputError, match="dtype must be float32, float16, bfloat16"):
        find_dtype(dtype)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"task": "paraphrase"}, XLMRError, "expected a task of 'fill-mask'.*received 'paraphrase'"),
        (
            {"framework": "tf"},
            InputError,
            "in xlmr_torch framework must be 'torch', received 'tf'; import pipeline from xlmr_tf",
        ),
        ({"model": "no/such/folder", "device": 99, "topk": 3}, InputError, "received topk"),
        ({"model": "no/such/folder", "device": 99}, InputError, "asks for a CUDA GPU"),
        ({"model": "no/such/folder", "device_map": {"": 99}}, InputError, "asks for a CUDA GPU"),
        ({"topk": 3}, InputError, "takes the options top_k, targets, .*, batch_size, received topk"),
        ({"model": "no/such/folder"}, ModelNotFoundError, "no/such/folder"),
        ({"device": "gpu"}, InputError, "received 'gpu'"),
        ({"dtype": "int8"}, InputError, "dtype must be"),
        ({"processor": 3}, InputError, "processor must be None, received 3: a text model has none"),
        ({"binary_output": True}, InputError, "binary_output must be False"),
    ],
)
def test_mistakes_are_named(folder, arguments, error, message):
    with pytest.raises(error, match=message):
        pipeline(**{"task": "fill-mask", "model": folder, **arguments})


def test_published_arguments_that_ask_for_nothing(fill, folder):
    text = "Hello <mask>."
    options = {"feature_extractor": None, "image_processor": None, "processor": None, "pipeline_class": None}
    other = pipeline("fill-mask", model=folder, num_workers=2, binary_output=False, **options)
    assert other(text, num_workers=0) == fill(text) == next(other(iter([text])))


def test_a_model_of_another_task_is_refused(fill):
    model = XLMRobertaForTokenClassification(fill.model.config)
    with pytest.raises(
        InputError, match="needs a model of AutoModelForMaskedLM, received XLMRobertaForTokenClassification"
    ):
        pipeline("fill-mask", model=model, tokenizer=fill.tokenizer)


def xlmr(*arguments, stdin="", env=None):
    command = [sys.executable, "-m", "xlmr_core", *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})}
    return subprocess.run(command, input=stdin.encode(), capture_output=True, timeout=120, check=False, env=environment)


def test_the_command_line_answers_like_the_pipeline(calls, fill, folder):
    texts = [call["args"][0] for call in calls[:9]]
    done = xlmr(
        "run",
        "--task",
        "fill-mask",
        "--model",
        str(folder),
        "--format",
        "json",
        "--batch-size",
        "4",
        stdin="\n".join(texts),
    )
    assert done.stderr == b""
    assert done.returncode == 0
    answers = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [answer["text"] for answer in answers] == texts
    for answer, call in zip(answers, calls, strict=False):
        assert_same(answer["answer"], call["output"])


def test_the_command_line_in_an_ascii_locale(calls, folder):
    env = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = xlmr("run", "--task", "fill-mask", "--model", str(folder), "--top-k", "1", "Я живу в <mask>", env=env)
    assert done.stderr == b""
    assert done.stdout.decode() == "Я живу в <mask>\n  0.2948  human\n\n"


@pytest.mark.skipif(GPU, reason="needs a machine without a CUDA GPU")
def test_the_command_line_without_the_gpu_it_was_told_to_use(folder):
    done = xlmr("run", "--task", "fill-mask", "--model", str(folder), "--device", "0", "<mask>")
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "xlmr: error: --device 'cuda:0' asks for a CUDA GPU, PyTorch sees none here; pass --device cpu, or install a "
        "CUDA build of torch\n"
    )


def test_the_command_line_with_a_model_that_does_not_exist(tmp_path):
    done = xlmr("run", "--task", "fill-mask", "--model", str(tmp_path / "nothing"), "<mask>")
    assert done.returncode == 2
    assert done.stderr.decode().count("\n") == 1
    assert "nothing" in done.stderr.decode()
