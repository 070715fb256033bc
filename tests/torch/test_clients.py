"""The real clients of each dialect against a running server; ``nox -s clients`` makes the environment for them."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import pytest

from tests.serving import serving
from xlmr_torch import pipeline

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
REASON = "the real clients are in the environment of `nox -s clients`"
openai = pytest.importorskip("openai", reason=REASON)
cohere = pytest.importorskip("cohere", reason=REASON)
pytest.importorskip("huggingface_hub", reason=REASON)

from huggingface_hub import AsyncInferenceClient, InferenceClient  # noqa: E402
from huggingface_hub.errors import HfHubHTTPError  # noqa: E402
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # noqa: E402

TEXTS = ["Ada in Oslo", "one more text, a longer one", "第三个文本"]
LONG = "word " * 9000
MODELS = {
    "vectors": "st_mean",
    "m3": "bge_m3",
    "ranks": "cross_encoder",
    "labels": "text_classification",
    "names": "token_classification",
    "answers": "question_answering",
}


@pytest.fixture(scope="module")
def folders(shared):
    return {name: shared / "fixtures" / "tasks" / folder for name, folder in MODELS.items()}


@pytest.fixture(scope="module")
def url(folders):
    models = [f"{name}={folder}" for name, folder in folders.items()]
    with serving(*models, "mini=xlmr-mini", "--backend", "torch", env={"XLMR_API_KEY": "k"}) as url:
        yield url


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=1e-5)


def test_openai(url, folders):
    expected = pipeline("sentence-embedding", folders["vectors"])(TEXTS)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        for format in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            found = client.embeddings.create(model="vectors", input=TEXTS, **format)
            vectors = [row.embedding for row in found.data]
            if format.get("encoding_format") == "base64":
                vectors = [np.frombuffer(base64.b64decode(text), "<f4") for text in vectors]
            close(vectors, expected)
        assert found.usage.total_tokens == found.usage.prompt_tokens > 6 and found.model == "vectors"
        short = client.embeddings.create(model="vectors", input=TEXTS[0], dimensions=4)
        assert len(short.data[0].embedding) == 4
        ids = pipeline("sentence-embedding", folders["vectors"]).tokenizer(TEXTS)["input_ids"]
        close([row.embedding for row in client.embeddings.create(model="vectors", input=ids).data], expected)
        assert {model.id for model in client.models.list()} == {*MODELS, "mini"}
        assert client.models.retrieve("m3").id == "m3"
        with pytest.raises(openai.NotFoundError, match="expected a model of"):
            client.embeddings.create(model="nobody", input="a")
        with pytest.raises(openai.BadRequestError, match="expected at most") as error:
            client.embeddings.create(model="vectors", input=LONG)
        assert error.value.code == "context_length_exceeded"
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="other") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.embeddings.create(model="vectors", input="a")


def test_cohere(url, folders):
    ranked = pipeline("rerank", folders["ranks"])(TEXTS[0], TEXTS)
    for client in (cohere.Client(api_key="k", base_url=url), cohere.ClientV2(api_key="k", base_url=url)):
        found = client.rerank(model="ranks", query=TEXTS[0], documents=TEXTS)
        assert [row.index for row in found.results] == [row["index"] for row in ranked]
        close([row.relevance_score for row in found.results], [row["score"] for row in ranked])
        assert len(client.rerank(model="ranks", query="a", documents=TEXTS, top_n=1).results) == 1
        with pytest.raises(cohere.NotFoundError):
            client.rerank(model="nobody", query="a", documents=TEXTS)
        with pytest.raises(cohere.BadRequestError):
            client.rerank(model="ranks", query="a", documents=[])
    cut = cohere.ClientV2(api_key="k", base_url=url).rerank(model="ranks", query="a", documents=[LONG])
    assert "cut" in cut.meta.warnings[0]


def test_huggingface_hub(url, folders):
    def at(path):
        return InferenceClient(model=url + path, token="k")

    close(at("/embed").feature_extraction(TEXTS), pipeline("sentence-embedding", folders["vectors"])(TEXTS))
    close(
        at("").feature_extraction(TEXTS[0], normalize=True),
        pipeline("sentence-embedding", folders["vectors"])(TEXTS[:1]),
    )
    assert len(at("/embed").feature_extraction(LONG, truncate=True)) == 1
    similar = pipeline("sentence-similarity", folders["vectors"])(TEXTS[0], TEXTS[1:])
    close(at("/similarity").sentence_similarity(TEXTS[0], TEXTS[1:]), similar)
    labels = at("/predict").text_classification(TEXTS[0])
    assert labels[0].label and labels[0].score >= labels[-1].score
    spans = at("/tasks/ner").token_classification(TEXTS[0], aggregation_strategy="simple")
    own = pipeline("ner", folders["names"], aggregation_strategy="simple")(TEXTS[0])
    assert [(span.entity_group, span.start) for span in spans] == [(row["entity_group"], row["start"]) for row in own]
    answer = at("/tasks/question-answering").question_answering(question="Who?", context=TEXTS[0])
    assert (
        answer.answer == pipeline("question-answering", folders["answers"])(question="Who?", context=TEXTS[0])["answer"]
    )
    filled = at("/tasks/fill-mask").fill_mask("Bonjour, je suis un modèle <mask>.", top_k=2)
    assert len(filled) == 2 and filled[0].token_str


def test_every_route_of_text_embeddings_inference(url, folders):
    def sent(path, **body):
        answer = get_session().post(url + path, json=body, headers=build_hf_headers(token="k"))
        hf_raise_for_status(answer)
        return answer.json()

    # Only with a provider does it ask a server for its health and what it is.
    client = InferenceClient(model=url, provider="hf-inference", token="k")
    assert client.health_check() and client.get_endpoint_info()["max_client_batch_size"] > 1
    embed = pipeline("sentence-embedding", folders["vectors"])
    how = {"truncate": True, "truncation_direction": "right", "encoding_format": "float"}
    found = client.feature_extraction(TEXTS, normalize=True, dimensions=4, model=f"{url}/embed", **how)
    close(found, embed(TEXTS, normalize=True, dimensions=4))
    whole = client.feature_extraction(TEXTS[0], model=f"{url}/embed_all")
    close(whole[0], embed(TEXTS[0], outputs=("tokens",))["tokens"])
    sparse = pipeline("sentence-embedding", folders["m3"], outputs=("sparse",))(TEXTS[0])["sparse"]
    (row,) = sent("/embed_sparse", inputs=TEXTS[0])
    assert {str(one["index"]): pytest.approx(one["value"], abs=1e-5) for one in row} == sparse
    ranked = pipeline("rerank", folders["ranks"])(TEXTS[0], TEXTS)
    assert [one["index"] for one in sent("/rerank", query=TEXTS[0], texts=TEXTS)] == [one["index"] for one in ranked]
    (tokens,) = sent("/tokenize", inputs=TEXTS[0])
    ids = [token["id"] for token in tokens]
    assert ids == embed.tokenizer(TEXTS[0])["input_ids"] and sent("/decode", ids=ids) == [TEXTS[0]]
    assert "xlmr_requests_total" in get_session().get(f"{url}/metrics", headers=build_hf_headers(token="k")).text
    with pytest.raises(HfHubHTTPError, match="expected at most"):
        client.feature_extraction(LONG)
    with pytest.raises(HfHubHTTPError, match="401"):
        InferenceClient(model=url, token="other").feature_extraction(TEXTS[0])


def test_many_at_once_of_huggingface_hub(url, folders):
    texts = [f"{'word ' * (number % 9)}{number}" for number in range(64)]

    async def everybody():
        async with AsyncInferenceClient(model=f"{url}/embed", token="k") as client:
            return await asyncio.gather(*(client.feature_extraction(text) for text in texts))

    close(np.concatenate(asyncio.run(everybody())), pipeline("sentence-embedding", folders["vectors"])(texts))
