"""The figures that the backends are held to, and how each is read from the results: a row each."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Result, quartiles, ratios, shown, spread

# By question: what a question wrote as JSON.
Reports = dict[str, dict[str, Any]]
Quartiles = list[float]
Reader = Callable[[Reports], Quartiles]
Bound = Callable[[Reports], float]

CLOSE = 0.05  # within this of a figure counts as met

# Behind the question of what was measured on a processor that does not multiply bfloat16.
WITHOUT = " without bfloat16 instructions"
NATURAL, FULL = "32 texts of natural length", "8 x 128, no padding"
ONE_TEXT, EIGHT_TEXTS = "one text, 64 new tokens", "eight texts, 64 new tokens"
PACE = "ms a token, up to "
PUBLISHED = "xlmr published call"
CURVE, GROWING = "time per token", "lengths that grow"
QUANTIZED_SENTENCE = "one sentence, logits of its mask"
XL_QUANTIZED, XL_ANSWERS = "XL is quantized", "XL fills a mask"


class Missing(Exception):
    """The results do not hold what a figure is read from."""


@dataclass(frozen=True)
class Target:
    """A figure.

    Attributes:
        what: in words.
        found: reads lower quartile, median and upper quartile.
        bound: reads what the median has to reach.
        at_least: whether the bound is a lower one.
        unit: how a value is shown, see ``harness.UNITS``; empty for a ratio.
    """

    what: str
    found: Reader
    bound: Bound
    at_least: bool = True
    unit: str = ""

    def row(self, reports: Reports) -> list[str]:
        """Cells: what, wanted, found, whether it is met."""
        word = "at least" if self.at_least else "at most"
        try:
            bound = self.bound(reports)
        except Missing:
            return [self.what, "(depends on what is measured)", "not measured", ""]
        wanted = f"{word} {self._shown(bound)}"
        try:
            found = self.found(reports)
        except Missing:
            return [self.what, wanted, "not measured", ""]
        met = found[1] >= bound * (1 - CLOSE) if self.at_least else found[1] <= bound * (1 + CLOSE)
        return [self.what, wanted, quartiles(found, self._shown), "yes" if met else "**no**"]

    def _shown(self, value: float) -> str:
        return shown(self.unit, value) if self.unit else f"{value:.3g}"


def pace(mark: int) -> str:
    """The name of what is measured up to a number of new tokens."""
    return f"{PACE}{mark}"


def pace_of(quantity: str) -> int:
    """The number of new tokens in such a name."""
    return int(quantity.removeprefix(PACE))


# ---- Readers


def case(reports: Reports, question: str, name: str) -> Result:
    for found in reports.get(question, {}).get("cases", []):
        if found["name"] == name:
            return dict(found)
    raise Missing(f"{question}: {name}")


def entry(reports: Reports, question: str, name: str, contestant: str) -> Result:
    contestants = case(reports, question, name)["contestants"]
    if contestant not in contestants:
        raise Missing(f"{question}: {name}: {contestant}")
    return dict(contestants[contestant])


def ratio(question: str, name: str, contestant: str, against: str, quantity: str = "seconds") -> Reader:
    """Round by round against any other contestant."""

    def read(reports: Reports) -> Quartiles:
        own, other = (entry(reports, question, name, who)["samples"][quantity] for who in (contestant, against))
        return spread(ratios(quantity, own, other))

    return read


def relative_time(question: str, name: str, contestant: str, against: str) -> Reader:
    """The share of the other's time."""

    def read(reports: Reports) -> Quartiles:
        return [1 / value for value in reversed(ratio(question, name, contestant, against)(reports))]

    return read


def difference(question: str, name: str, contestant: str, against: str, quantity: str = "seconds") -> Reader:
    def read(reports: Reports) -> Quartiles:
        own, other = (entry(reports, question, name, who)["samples"][quantity] for who in (contestant, against))
        return spread([ours - theirs for ours, theirs in zip(own, other, strict=True)])

    return read


def measured(question: str, name: str, contestant: str, quantity: str = "seconds") -> Reader:
    return lambda reports: list(entry(reports, question, name, contestant)["quartiles"][quantity])


def growth(question: str, name: str, contestant: str, early: str, late: str) -> Reader:
    """How many times as much as an early quantity a late one is, round by round."""

    def read(reports: Reports) -> Quartiles:
        samples = entry(reports, question, name, contestant)["samples"]
        return spread(ratios(late, samples[late], samples[early]))

    return read


def error(question: str, name: str, contestant: str, kind: str) -> Reader:
    return lambda reports: [entry(reports, question, name, contestant)["error"][kind]] * 3


# ---- Bounds


def number(value: float) -> Bound:
    return lambda reports: value


def times_pad(factor: float) -> Bound:
    return lambda reports: factor * case(reports, "encoder", NATURAL)["facts"]["pad"]


def times_own_pad(factor: float, question: str, name: str) -> Bound:
    """So many times the padding ratio of the case itself."""
    return lambda reports: factor * case(reports, question, name)["facts"]["pad"]


def file_and_bare(question: str, factor: float, bare: str) -> Bound:
    """So many times the file, and what a process that only imports the framework holds."""

    def read(reports: Reports) -> float:
        file = case(reports, question, "first answer")["facts"]["file_mib"]
        alone = entry(reports, question, "first answer", f"{bare} alone")["samples"]["peak_mib"]
        return float(factor * file + statistics.median(alone))

    return read


def error_of(question: str, name: str, contestant: str, kind: str) -> Bound:
    return lambda reports: error(question, name, contestant, kind)(reports)[1]


# ---- The figures


def peak_of_first_answer(what: str, question: str, contestant: str, factor: float, bare: str) -> Target:
    """The peak memory of a fresh process, held to a factor of the file and what its framework alone takes."""
    return Target(
        f"{what}: peak memory, against {factor:g} times the file plus bare {bare}",
        measured(question, "first answer", contestant, "peak_mib"),
        file_and_bare(question, factor, bare),
        at_least=False,
        unit="peak_mib",
    )


def flat(what: str, question: str, contestant: str) -> Target:
    """The time of a token at the end of a long text, held to that at its beginning."""
    return Target(
        f"{what}: times as dear a token of 448 as one of 64",
        growth(question, CURVE, contestant, pace(64), pace(448)),
        number(1.1),
        at_least=False,
    )


def compiled_once(what: str, question: str, contestant: str) -> Target:
    """That longer prompts and texts need no further programs."""
    return Target(
        f"{what}: programs compiled while lengths grow, after the first call",
        measured(question, GROWING, contestant, "later"),
        number(0.0),
        at_least=False,
    )


def generation_of(what: str, question: str, contestant: str, torch: str) -> tuple[Target, ...]:
    """What generation of another backend is held to."""
    return (
        *(
            Target(
                f"{what}, generate, {texts}: share of the time of our PyTorch",
                relative_time(question, name, contestant, torch),
                number(1.3),
                at_least=False,
            )
            for texts, name in (("one text", ONE_TEXT), ("eight texts", EIGHT_TEXTS))
        ),
        flat(f"{what}, generate", question, contestant),
        compiled_once(f"{what}, generate", question, contestant),
    )


def quantized(scheme: str, times: float, peer: str) -> tuple[Target, ...]:
    """What a scheme of four bits is held to: its size, its time and its error.

    Args:
        scheme: by name.
        times: how many times the time of bfloat16.
        peer: whose error is allowed.
    """
    question, name, contestant = "quantized", QUANTIZED_SENTENCE, f"xlmr {scheme}"
    return (
        Target(
            f"{scheme} on disk: share of float32",
            ratio(question, name, contestant, "xlmr float32", "mib"),
            number(0.16),
            at_least=False,
        ),
        Target(
            f"{scheme}, one sentence: share of the time of bfloat16",
            relative_time(question, name, contestant, "xlmr bfloat16"),
            number(times),
            at_least=False,
        ),
        Target(
            f"{scheme}, one sentence: error, against that of {peer.removeprefix('xlmr as ')}",
            error(question, name, contestant, "error"),
            error_of(question, name, peer, "error"),
            at_least=False,
        ),
    )


HF, ST, FLAX = "transformers", "sentence_transformers", "transformers 4 flax"
FINE_TUNED = ("text-classification", "token-classification", "question-answering", "multiple-choice", "rerank")
# What is asked of generation: in words, the contestant, how many times as fast as transformers.
GENERATED = (
    ("float32", "xlmr", 1.05),
    ("bfloat16", "xlmr bfloat16", 2.0),
    ("int8 vocabulary head", "xlmr bfloat16, int8 head", 3.5),
)
TARGETS = (
    Target("encoder, natural, float32: speed", ratio("encoder", NATURAL, "xlmr", HF), times_pad(0.95)),
    Target("the same against CTranslate2 float32", ratio("encoder", NATURAL, "xlmr", "CTranslate2"), number(1.0)),
    Target("encoder, natural, compiled: speed", ratio("encoder", NATURAL, "xlmr compiled", HF), times_pad(0.95 * 1.1)),
    Target("the same against not compiled", ratio("encoder", NATURAL, "xlmr compiled", "xlmr"), number(1.1)),
    Target(
        "encoder, natural, bfloat16: speed", ratio("encoder", NATURAL, "xlmr compiled bfloat16", HF), times_pad(1.8)
    ),
    Target(
        "encoder, natural, bfloat16: mean error",
        error("encoder", NATURAL, "xlmr compiled bfloat16", "mean error"),
        number(0.006),
        at_least=False,
    ),
    Target("encoder, natural, int8: speed", ratio("encoder", NATURAL, "xlmr compiled int8", HF), times_pad(2.5)),
    Target(
        "encoder, natural, int8: mean error, against that of CTranslate2 int8",
        error("encoder", NATURAL, "xlmr compiled int8", "mean error"),
        error_of("encoder", NATURAL, "CTranslate2 int8", "mean error"),
        at_least=False,
    ),
    Target(
        "int8 on disk: share of float32",
        ratio("int8_files", "size on disk", "int8", "float32", "mib"),
        number(0.25),
        False,
    ),
    Target(
        "int8 saved and loaded: error",
        error("int8_files", "size on disk", "int8", "error of the loaded"),
        number(0.0),
        False,
    ),
    *quantized("int4", 1.5, "xlmr as bitsandbytes nf4"),
    *quantized("nf4", 5.0, "xlmr as bitsandbytes nf4"),
    *(
        Target(
            f"{case_name} ({scheme}): peak memory",
            measured("quantized_xl", case_name, scheme, "peak_mib"),
            number(bound / 2**20),
            at_least=False,
            unit="peak_mib",
        )
        for case_name, bound in ((XL_QUANTIZED, 1.5e9), (XL_ANSWERS, 3.5e9))
        for scheme in ("int4", "nf4")
    ),
    *(
        Target(
            f"compiled encoder, natural, {dtype}: share of the time that its products alone take",
            ratio("near_limit", f"{dtype}, {NATURAL}", "xlmr compiled", "products"),
            number(share),
        )
        for dtype, share in (("float32", 0.92), ("bfloat16", 0.9), ("int8", 0.75))
    ),
    *(
        Target(
            f"{words}, int8: speed against {peer}",
            ratio(f"encoder{WITHOUT}", name, "xlmr compiled int8", peer),
            number(1.0),
        )
        for words, name in (("encoder, natural", NATURAL), ("encoder, 8 x 128", FULL))
        for peer in ("CTranslate2 int8", "ONNX Runtime int8", "OpenVINO int8 weights")
    ),
    Target(
        "encoder, natural, as loaded: share of the time of optimize_for_inference without compiling",
        relative_time(f"encoder{WITHOUT}", NATURAL, "xlmr", "xlmr optimized"),
        number(1.0),
        at_least=False,
    ),
    *(
        Target(
            f"bge-m3's shape, {length} tokens, {dtype}: speed",
            ratio("long_texts", f"bge-m3, texts of {length} tokens", f"xlmr {dtype}", HF, "tokens a second"),
            number(times),
        )
        for length, times in ((8192, 2.0), (2048, 2.2))
        for dtype in ("bfloat16", "int8")
    ),
    Target("encoder, 8 x 128, float32: speed", ratio("encoder", FULL, "xlmr", HF), number(1.0)),
    Target("encoder, 8 x 128, compiled: speed", ratio("encoder", FULL, "xlmr compiled", HF), number(1.15)),
    Target("MLM step, 8 x 128, AdamW: speed", ratio("training", "8 x 128, AdamW", "xlmr", HF), number(1.9)),
    Target("MLM step, 8 x 128, fused AdamW: speed", ratio("training", "8 x 128, fused AdamW", "xlmr", HF), number(2.3)),
    Target(
        "MLM step, 16 x 128: share of the peak memory",
        ratio("training", "16 x 128, peak memory", "xlmr", HF, "peak_mib"),
        number(0.75),
        at_least=False,
    ),
    Target(
        "MLM step by the published call, 8 x 128, AdamW: speed",
        ratio("training", "8 x 128, AdamW", PUBLISHED, HF),
        number(1.8),
    ),
    Target(
        "the same in a loop that keeps the outputs, fused AdamW: speed",
        ratio("training", "8 x 128, outputs kept", PUBLISHED, HF),
        number(1.8),
    ),
    Target(
        "MLM step by the published call, 16 x 128: share of the peak memory",
        ratio("training", "16 x 128, peak memory", PUBLISHED, HF, "peak_mib"),
        number(0.75),
        at_least=False,
    ),
    Target(
        "the same against sparse_prediction",
        ratio("training", "16 x 128, peak memory", PUBLISHED, "xlmr", "peak_mib"),
        number(1.05),
        at_least=False,
    ),
    *(
        Target(
            f"step of a recipe beside Trainer, natural, {task}: speed",
            ratio("recipes", task, "xlmr", HF),
            bound,
        )
        for task, bound in (
            ("masked-language-modeling", number(2.3)),
            *((task, times_own_pad(0.9, "recipes", task)) for task in FINE_TUNED),
        )
    ),
    Target("fill-mask, one sentence: speed", ratio("fill_mask", "one sentence", "xlmr", HF), number(1.8)),
    Target(
        "fill-mask, eight natural sentences: speed",
        ratio("fill_mask", "eight natural sentences", "xlmr", HF),
        number(3.0),
    ),
    *(
        Target(f"{case_name}: speed", ratio("tasks", case_name, "xlmr", HF), number(bound))
        for case_name, bound in (
            ("vectors of natural sentences", 2.5),
            ("20 labels for each text", 2.5),
            ("8 questions about one context", 2.0),
        )
    ),
    *(
        Target(
            f"{case_name}, {contestant.removeprefix('xlmr').strip() or 'as loaded'}: speed",
            ratio(question, case_name, contestant, peer),
            number(bound),
        )
        for question, case_name, peer, bounds in (
            ("vectors", "vectors of natural sentences", ST, (1.1, 1.2, 1.8)),
            ("vectors", "4 queries, 25 passages each", ST, (1.0, 1.15, 1.8)),
            ("bge_m3", "three kinds of vectors", "FlagEmbedding", (1.0, 1.15, 1.8)),
        )
        for contestant, bound in zip(("xlmr", "xlmr compiled", "xlmr bfloat16"), bounds, strict=True)
    ),
    Target(
        "vectors in any order: times as dear as sorted",
        ratio("vectors", "vectors of natural sentences", "xlmr, sorted", "xlmr"),
        number(1.05),
        at_least=False,
    ),
    Target(
        "three kinds of vectors: times as dear as the dense ones",
        ratio("bge_m3", "three kinds of vectors", "xlmr, dense alone", "xlmr"),
        number(1.05),
        at_least=False,
    ),
    Target(
        "first answer: share of the time",
        relative_time("start_up", "first answer", "xlmr", HF),
        number(0.4),
        at_least=False,
    ),
    peak_of_first_answer("first answer", "start_up", "xlmr", 1.15, "torch"),
    *(
        Target(
            f"packed graph beside the padded one, {NATURAL}, {kind}",
            ratio("onnx", NATURAL, f"xlmr exported{more}", f"ONNX Runtime{more}"),
            number(bound),
        )
        for kind, more, bound in (("float32", "", 2.0), ("int8", " int8", 1.8))
    ),
    Target(
        "first answer of a graph: share of PyTorch's time",
        relative_time("onnx", "first answer", "xlmr exported", "xlmr in PyTorch"),
        number(0.5),
        at_least=False,
    ),
    Target(
        "one request to a server alone: time over the pipeline's",
        difference("serving", "one request alone", "server", "pipeline"),
        number(0.006),
        at_least=False,
        unit="seconds",
    ),
    Target(
        "64 clients of a server: throughput beside the pipeline's",
        ratio("serving", "64 clients at once", "server", "pipeline", "tokens a second"),
        number(0.85),
    ),
    Target(
        "import xlmr_torch above import torch",
        difference("start_up", "import", "xlmr_torch", "torch"),
        number(0.15),
        at_least=False,
        unit="seconds",
    ),
    Target("10 000 sentences to ids: speed", ratio("tokenizing", "10 000 sentences to ids", "xlmr", HF), number(5.0)),
    Target(
        "tokenizer, cold start, sentencepiece class",
        measured("tokenizing", "cold start", "xlmr"),
        number(1.2),
        at_least=False,
        unit="seconds",
    ),
    Target(
        "tokenizer, cold start, fast class",
        measured("tokenizing", "cold start", "xlmr fast"),
        number(0.7),
        at_least=False,
        unit="seconds",
    ),
    *(
        Target(
            f"{name}: graphs compiled after the first of a hundred batches",
            measured("recompiles", "a hundred batches", name, "later"),
            number(0.0),
            at_least=False,
        )
        for name in ("xlmr compiled", "xlmr compiled bfloat16", "xlmr compiled int8")
    ),
    *(
        Target(
            f"{name}: graph breaks",
            measured("recompiles", "a hundred batches", name, "breaks"),
            number(0.0),
            at_least=False,
        )
        for name in ("xlmr compiled", "xlmr compiled bfloat16", "xlmr compiled int8")
    ),
    *(
        Target(f"generate, {texts}, {what}: speed", ratio("generation", name, contestant, HF), number(bound))
        for texts, name in (("one text", ONE_TEXT), ("eight texts", EIGHT_TEXTS))
        for what, contestant, bound in GENERATED
    ),
    *(flat(f"generate, {what}", "generation", contestant) for what, contestant, _ in GENERATED),
    compiled_once("generate, compiled", "generation", "xlmr compiled"),
    # The Keras backend, beside what there is on TensorFlow, everybody in one graph.
    *(
        Target(f"{batch}: speed against {who}", ratio("keras_encoder", case_name, "xlmr_tf", peer), number(bound))
        for batch, case_name, bound in (("Keras encoder, natural", NATURAL, 2.0), ("Keras encoder, 8 x 128", FULL, 1.0))
        for who, peer in (("the original class", "original"), ("KerasHub", "KerasHub"))
    ),
    Target(
        "Keras encoder, 8 x 128: share of the time of our PyTorch",
        relative_time("keras_encoder", FULL, "xlmr_tf", "xlmr_torch"),
        number(1.1),
        at_least=False,
    ),
    Target(
        "Keras MLM step, 8 x 128, masked positions: speed against the original class",
        ratio("keras_training", "8 x 128, AdamW", "xlmr_tf", "original"),
        number(1.8),
    ),
    Target(
        "Keras fit: share of the time of a bare loop",
        relative_time("keras_training", "4 steps of a classifier", "fit", "bare loop"),
        number(1.05),
        at_least=False,
    ),
    Target(
        "Keras encoder: graphs traced after the first of a hundred batches",
        measured("keras_retraces", "a hundred batches", "xlmr_tf", "later"),
        number(0.0),
        at_least=False,
    ),
    *generation_of("Keras", "keras_generation", "xlmr_tf", "xlmr_torch"),
    peak_of_first_answer("Keras, first answer", "keras_start_up", "xlmr_tf", 1.3, "tensorflow"),
    Target("Flax, encoder, natural: speed", ratio("flax_encoder", NATURAL, "xlmr flax", FLAX), number(2.0)),
    Target("Flax, encoder, 8 x 128: speed", ratio("flax_encoder", FULL, "xlmr flax", FLAX), number(1.0)),
    Target(
        "the same against our PyTorch: share of its time",
        relative_time("flax_encoder", FULL, "xlmr flax", "xlmr torch"),
        number(1.1),
        at_least=False,
    ),
    *(
        Target(
            f"Flax, encoder, {words}: bfloat16 against float32",
            ratio("flax_encoder", name, "xlmr flax bfloat16", "xlmr flax"),
            number(1.0),
        )
        for words, name in (("natural", NATURAL), ("8 x 128", FULL))
    ),
    Target("Flax, MLM step, 8 x 128: speed", ratio("flax_training", "8 x 128, AdamW", "xlmr flax", FLAX), number(1.8)),
    Target(
        "Flax, compiling the MLM step: share of the time",
        relative_time("flax_compiling", "12 layers", "xlmr flax", FLAX),
        number(1.0),
        at_least=False,
    ),
    Target(
        "Flax, first answer: share of the time",
        relative_time("flax_start_up", "first answer", "xlmr flax", FLAX),
        number(0.4),
        at_least=False,
    ),
    *generation_of("Flax", "flax_generation", "xlmr flax", "xlmr torch"),
    peak_of_first_answer("Flax, first answer", "flax_start_up", "xlmr flax", 1.15, "jax"),
)
