"""The addresses of Text Embeddings Inference, which ``huggingface_hub`` and many vector stores call.

A text that is too long is refused, or cut where the call says ``truncate``.
"""

from __future__ import annotations

from typing import Any

from xlmr_core import __version__
from xlmr_core.errors import InputError
from xlmr_core.serving import fields as kinds
from xlmr_core.serving.dialects.openai import texts_or_ids
from xlmr_core.serving.faults import Fault, fault_of
from xlmr_core.serving.fields import Field, read_fields
from xlmr_core.serving.models import Answered, Model, Models, Question, TokenIds
from xlmr_core.serving.routes import Dialect, Route, Values
from xlmr_core.tasks.sentence_embedding import OUTPUTS, SentenceEmbedding
from xlmr_core.tasks.sentence_folder import prompt_called

__all__ = ["BY_TASK", "ROUTES", "TEI"]

# By kinds of faults, the type that clients know.
_TYPES = {
    "invalid": "Validation",
    "malformed": "Validation",
    "too_long": "Validation",
    "too_large": "Validation",
    "overloaded": "Overloaded",
    "stopping": "Unhealthy",
}


def _fault(fault: Fault, status: int) -> Any:
    return {"error": str(fault), "error_type": _TYPES.get(fault.kind, "Backend")}


TEI = Dialect(
    "Text Embeddings Inference",
    _fault,
    wording={
        "pass on_overflow='truncate'": 'send "truncate": true',
        "pass the text itself as prompt=": "leave it out, and put a prompt before the text itself",
    },
)

_MODEL = Field("model", kinds.TEXT, "the name of a model; by default the first that can do it")
_TRUNCATE = Field("truncate", kinds.BOOLEAN, "cut what is too long, in place of refusing it", usual=False)
_SIDES = kinds.one_of("Left", "Right", "left", "right")
_SIDE = Field("truncation_direction", _SIDES, "where is cut: Right", usual="Right")
_PROMPT = Field("prompt_name", kinds.TEXT, "the name of one of the model's prompts")
_INPUTS = Field("inputs", kinds.TEXTS_OR_IDS, "what vectors are made of", required=True)
_RAW = Field("raw_scores", kinds.BOOLEAN, "the model's numbers as they are", usual=False)


def _cutting(values: Values) -> dict[str, Any]:
    """What happens to texts that are too long.

    Raises:
        Fault: for a cut at the beginning.
    """
    if str(values.get("truncation_direction")).lower() == "left" and values["truncate"]:
        raise Fault(
            "invalid",
            "expected a truncation_direction of Right, received Left; leave it out: texts are cut where the model's "
            "tokenizer cuts them",
            param="truncation_direction",
        )
    return {"on_overflow": "truncate" if values["truncate"] else "error"}


# Vectors


def _ask_vectors(values: Values, head: str | None = None, **more: Any) -> Question:
    inputs = texts_or_ids(values["inputs"])
    if values["prompt_name"] is not None and any(isinstance(given, TokenIds) for given in inputs):
        raise Fault("invalid", "expected texts behind a prompt, received ids; leave it out", param="prompt_name")
    options = {**_cutting(values), "prompt_name": values["prompt_name"], **more}
    return Question("sentence-embedding", inputs, options, values["model"], head=head)


def _ask_embed(values: Values) -> Question:
    return _ask_vectors(values, normalize=values["normalize"], dimensions=values["dimensions"])


def _ask_all(values: Values) -> Question:
    return _ask_vectors(values, outputs=("tokens",))


def _ask_sparse(values: Values) -> Question:
    return _ask_vectors(values, head=OUTPUTS["sparse"], outputs=("sparse",))


def _render_embed(values: Values, answered: Answered) -> Any:
    return answered.value.tolist()


def _render_all(values: Values, answered: Answered) -> Any:
    return [answer["tokens"].tolist() for answer in answered.value]


def _render_sparse(values: Values, answered: Answered) -> Any:
    return [
        [{"index": int(token), "value": weight} for token, weight in answer["sparse"].items()]
        for answer in answered.value
    ]


# Numbers for pairs and texts

_SIMILAR = (
    Field("source_sentence", kinds.TEXT, "what the others are compared with", required=True),
    Field("sentences", kinds.TEXTS, "what is compared", required=True),
)
_HOW = (_PROMPT, _TRUNCATE, _SIDE)


def _ask_similarity(values: Values) -> Question:
    sides, how = read_fields(values["inputs"], _SIMILAR), read_fields(values["parameters"] or {}, _HOW)
    return Question(
        "sentence-similarity",
        {"source": sides["source_sentence"], "target": sides["sentences"]},
        {**_cutting(how), "prompt_name": how["prompt_name"]},
        values["model"],
    )


def _render_similarity(values: Values, answered: Answered) -> Any:
    return answered.value.tolist()


def _ask_rerank(values: Values) -> Question:
    options = {**_cutting(values), "return_documents": values["return_text"]}
    options |= {"function_to_apply": "none"} if values["raw_scores"] else {}
    return Question("rerank", {"query": values["query"], "passages": values["texts"]}, options, values["model"])


def _render_rerank(values: Values, answered: Answered) -> Any:
    return answered.value


_PARAMETERS = (
    Field("top_k", kinds.COUNT, "how many labels, best first; by default all"),
    Field("function_to_apply", kinds.one_of("softmax", "sigmoid", "none"), "what makes scores of numbers"),
)


def _ask_predict(values: Values) -> Question:
    how = read_fields(values["parameters"] or {}, _PARAMETERS)
    options = {**_cutting(values), **how}
    if values["raw_scores"]:
        options["function_to_apply"] = "none"
    given = values["inputs"]
    texts = [given] if isinstance(given, str) or isinstance(given[0], str) else given
    return Question("text-classification", [_one(text) for text in texts], options, values["model"])


def _one(given: Any) -> Any:
    """A text, or a pair."""
    if isinstance(given, str) or len(given) == 1:
        return given if isinstance(given, str) else given[0]
    return {"text": given[0], "text_pair": given[1]}


def _render_predict(values: Values, answered: Answered) -> Any:
    given = values["inputs"]
    # The client of huggingface_hub, which alone says parameters, takes the first of a list.
    single = (isinstance(given, str) or isinstance(given[0], str)) and values["parameters"] is None
    return answered.value[0] if single else answered.value


# Without the model itself


def _tokenize(values: Values, model: Model) -> Any:
    given = [values["inputs"]] if isinstance(values["inputs"], str) else values["inputs"]
    prompt = _prompt(values["prompt_name"], model)
    texts = [prompt + text for text in given]
    encoded = model.tokenizer(
        texts,
        add_special_tokens=values["add_special_tokens"],
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    columns = (encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"])
    return [
        [_token(model, text, *token) for token in zip(*row, strict=True)]
        for text, *row in zip(texts, *columns, strict=True)
    ]


def _prompt(name: str | None, model: Model) -> str:
    vectors = model.tasks.get("sentence-embedding")
    try:
        return prompt_called(name, vectors.folder.prompts if isinstance(vectors, SentenceEmbedding) else {})
    except InputError as error:
        raise fault_of(error) from error


def _token(model: Model, text: str, token: int, place: Any, special: int) -> Any:
    if special:
        name = model.tokenizer.convert_ids_to_tokens(token)
        return {"id": token, "text": name, "special": True, "start": None, "stop": None}
    start, stop = map(int, place)
    return {"id": token, "text": text[start:stop], "special": False, "start": start, "stop": stop}


def _decode(values: Values, model: Model) -> Any:
    ids = [values["ids"]] if isinstance(values["ids"][0], int) else values["ids"]
    most = len(model.tokenizer)
    wrong = next((token for row in ids for token in row if not 0 <= token < most), None)
    if wrong is not None:
        raise Fault("invalid", f"expected ids of tokens from 0 to {most - 1}, received {wrong}", param="ids")
    return [model.tokenizer.decode(row, skip_special_tokens=values["skip_special_tokens"]) for row in ids]


def _info(values: Values, models: Models) -> Any:
    model = models.first
    settings = model.settings
    return {
        "model_id": model.source,
        "model_sha": None,
        "model_dtype": str(getattr(model.runner.model, "dtype", "float32")).rpartition(".")[2],
        "model_type": _kind(model),
        "max_concurrent_requests": settings.max_requests,
        "max_input_length": _longest(model),
        "max_batch_tokens": settings.batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_texts,
        "auto_truncate": False,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


def _longest(model: Model) -> int:
    """Tokens of a text at most, as its files say or else the tokenizer, and never more than the model reads."""
    vectors = model.tasks.get("sentence-embedding")
    said = vectors.folder.max_seq_length if isinstance(vectors, SentenceEmbedding) else None
    return int(min(said or model.tokenizer.model_max_length, model.config.max_tokens))


def _kind(model: Model) -> Any:
    config = model.config
    vectors = model.tasks.get("sentence-embedding")
    if isinstance(vectors, SentenceEmbedding):
        return {"embedding": {"pooling": "+".join(vectors.folder.pooling or ("mean",))}}
    if "text-classification" not in model.tasks:
        return {next(iter(model.tasks)): {}}
    labels = {str(index): label for index, label in config.id2label.items()}
    kind = "reranker" if "rerank" in model.tasks else "classifier"
    return {kind: {"id2label": labels, "label2id": dict(config.label2id)}}


# What a POST to the address itself means, by the task that the first model can do.
BY_TASK = {"sentence-embedding": "/embed", "rerank": "/rerank", "text-classification": "/predict"}

ROUTES = (
    Route(
        "/embed",
        "Vectors of texts",
        TEI,
        (
            _INPUTS,
            Field("normalize", kinds.BOOLEAN, "whether vectors have length one", usual=True),
            Field("encoding_format", kinds.one_of("float"), "how vectors are written; /v1/embeddings knows base64 too"),
            Field("dimensions", kinds.COUNT, "numbers of a vector; by default all"),
            *(_PROMPT, _TRUNCATE, _SIDE, _MODEL),
        ),
        ask=_ask_embed,
        render=_render_embed,
    ),
    Route(
        "/embed_all",
        "A vector for each token of a text",
        TEI,
        (_INPUTS, _PROMPT, _TRUNCATE, _SIDE, _MODEL),
        ask=_ask_all,
        render=_render_all,
    ),
    Route(
        "/embed_sparse",
        "The weight of each word piece of a text, of bge-m3 and its like",
        TEI,
        (_INPUTS, _PROMPT, _TRUNCATE, _SIDE, _MODEL),
        ask=_ask_sparse,
        render=_render_sparse,
    ),
    Route(
        "/similarity",
        "How alike texts are",
        TEI,
        (
            Field("inputs", kinds.OBJECT, "an object of source_sentence and sentences", required=True),
            Field("parameters", kinds.OBJECT, "prompt_name, truncate and truncation_direction"),
            _MODEL,
        ),
        ask=_ask_similarity,
        render=_render_similarity,
    ),
    Route(
        "/rerank",
        "Texts in the order in which they answer a query",
        TEI,
        (
            Field("query", kinds.TEXT, "what is asked", required=True),
            Field("texts", kinds.TEXTS, "what is put in order", required=True),
            Field("return_text", kinds.BOOLEAN, "with the text of each", usual=False),
            *(_RAW, _TRUNCATE, _SIDE, _MODEL),
        ),
        ask=_ask_rerank,
        render=_render_rerank,
    ),
    Route(
        "/predict",
        "The labels of texts and pairs, best first",
        TEI,
        (
            Field("inputs", kinds.PREDICTED, "what is classified", required=True),
            Field("parameters", kinds.OBJECT, "top_k and function_to_apply"),
            *(_RAW, _TRUNCATE, _SIDE, _MODEL),
        ),
        ask=_ask_predict,
        render=_render_predict,
    ),
    Route(
        "/tokenize",
        "The tokens of texts, and where they stand",
        TEI,
        (
            Field("inputs", kinds.TEXT_OR_TEXTS, "what is tokenized", required=True),
            Field("add_special_tokens", kinds.BOOLEAN, "with <s> and </s>", usual=True),
            *(_PROMPT, _MODEL),
        ),
        tell=_tokenize,
    ),
    Route(
        "/decode",
        "The texts of tokens",
        TEI,
        (
            Field("ids", kinds.IDS, "ids of tokens", required=True),
            Field("skip_special_tokens", kinds.BOOLEAN, "without <s> and </s>", usual=True),
            _MODEL,
        ),
        tell=_decode,
    ),
    Route("/info", "The first model, and the limits", TEI, method="GET", show=_info),
)
