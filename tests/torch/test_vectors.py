"""Vectors and ranking in PyTorch: every recorded call of the published classes, and what the tasks add."""

from __future__ import annotations

import json
import shutil
from functools import cache

import numpy as np
import pytest
import torch

import xlmr_torch
from tests.recorded_calls import EVERY_PUBLISHED, ask_published, assert_close
from xlmr_core.cli import main
from xlmr_core.conversion import convert
from xlmr_core.errors import InputError
from xlmr_core.tasks.vectors import normalized
from xlmr_torch import BGEM3FlagModel, CrossEncoder, SentenceTransformer, pipeline

TEXTS = [f"{'word ' * (index % 5)}text {index}" for index in range(12)]
LONG = "In the spring of 1921 Clara Novak left Prague for Vienna with two suitcases and a violin. " * 4


@cache
def made(kind, folder, arguments):
    return getattr(xlmr_torch, kind)(folder, **json.loads(arguments))


@cache
def embedder(folder):
    return pipeline("sentence-embedding", folder)


@pytest.fixture(scope="module")
def fixtures(shared):
    return shared / "fixtures" / "tasks"


@pytest.mark.parametrize(("name", "number"), EVERY_PUBLISHED)
def test_recorded_call(name, number, fixtures):
    ask_published(made, fixtures / name, number)


def test_the_task_gives_arrays_whatever_runs_together(fixtures):
    embed = embedder(fixtures / "st_mean")
    vectors = embed(TEXTS)
    assert isinstance(vectors, np.ndarray) and vectors.shape == (12, 16) and vectors.dtype == np.float32
    for options in ({"batch_size": 5}, {"batch_tokens": 40}):
        assert_close(embed(TEXTS, **options), vectors.tolist())
        assert_close(list(embed(iter(TEXTS), **options)), vectors.tolist())
    assert embed(TEXTS[0]).shape == (16,) and embed([]).shape == (0, 16)
    assert_close(embed(np.array(TEXTS)), vectors.tolist())


def test_dimensions_prompts_and_bits(fixtures, caplog):
    embed = embedder(fixtures / "st_mean")
    whole = embed(TEXTS)
    assert_close(embed(TEXTS, dimensions=5), normalized(whole[:, :5]).tolist())
    assert_close(embed(TEXTS, prompt_name="passage"), embed([f"passage: {text}" for text in TEXTS]).tolist())
    ranges = np.stack([whole.min(0), whole.max(0)])
    few = embed(TEXTS, precision="int8")
    assert few.dtype == np.int8 and "too few to say much" in caplog.text
    assert np.array_equal(embed(TEXTS, precision="int8", ranges=ranges), few)
    one_by_one = np.stack(list(embed(iter(TEXTS), precision="int8", ranges=ranges)))
    # Other texts run together: a number on the border of two codes may take the other one.
    assert one_by_one.dtype == np.int8 and np.abs(one_by_one.astype(int) - few).max() <= 1
    assert embed(TEXTS, precision="binary").shape == (12, 2)
    for options, message in (
        ({"prompt_name": "nope"}, "prompt_name must be one of 'query', 'passage', received 'nope'"),
        ({"dimensions": 17}, "at most 16 dimensions"),
        ({"outputs": "sparse"}, "sparse needs sparse_linear.pt or .safetensors beside the weights"),
        ({"outputs": "many"}, "outputs must be of dense, sparse, colbert, tokens, received 'many'"),
        ({"outputs": "tokens", "spans": []}, "leave one of them out"),
        ({"ranges": [1, 2], "precision": "int8"}, "ranges must be the least and the largest numbers of 16"),
    ):
        with pytest.raises(InputError, match=message):
            embed(TEXTS, **options)
    with pytest.raises(InputError, match="received texts one by one"):
        embed(iter(TEXTS), precision="int8")


def test_texts_that_are_too_long(fixtures, caplog):
    embed = embedder(fixtures / "st_mean")
    cut = embed(LONG)
    assert embed.truncated == [0] and "truncated" in caplog.text
    assert np.array_equal(embed(LONG, on_overflow="truncate"), cut)
    whole = embed([LONG, "short"], on_overflow="window")
    assert embed.truncated == [] and not np.allclose(whole[0], cut, atol=1e-3)
    assert_close(whole[1], embed("short").tolist())
    with pytest.raises(InputError, match="at most 32 tokens"):
        embed(LONG, on_overflow="error")


@pytest.mark.parametrize("name", ["st_mean", "st_max", "st_mean_noprompt"])
def test_vectors_of_parts_come_from_the_states_of_the_whole(name, fixtures):
    embed = embedder(fixtures / name)
    text = "Clara left Prague. She never came back."
    parts = [(0, 18), (19, 39)]
    how = {"prompt": "", "max_length": 64}
    found = embed(text, spans=parts, **how)
    states = embed(text, outputs=("tokens",), **how)["tokens"]
    offsets = embed.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    for (start, end), vector in zip(parts, found, strict=True):
        inside = [place for place, (first, last) in enumerate(offsets) if first < last and first < end and last > start]
        pooled = states[inside].max(0) if name == "st_max" else states[inside].mean(0)
        assert_close(vector, (normalized(pooled) if name == "st_mean" else pooled).tolist())
    several = embed([text, "a", text], spans=[parts, [(0, 1)], []], **how)
    assert [vectors.shape for vectors in several] == [(2, 16), (1, 16), (0, 16)]
    assert_close(several[0], found.tolist())
    assert_close(embed(text, spans=[(8, 18), (15, 26)], prompt="note: ", max_length=64).shape, [2, 16])
    for wrong, message in (
        ([(5, 3)], "expected spans as"),
        ([(0, 99)], "which has 39 characters"),
    ):
        with pytest.raises(InputError, match=message):
            embed(text, spans=wrong)
    with pytest.raises(InputError, match="a list of spans for each text, received 1 for 2"):
        embed([text, text], spans=[parts])
    with pytest.raises(InputError, match="read in one pass"):
        embed(LONG, spans=[(0, 5)])


def test_similarity(fixtures):
    similar = pipeline("sentence-similarity", fixtures / "st_cls")
    vectors = embedder(fixtures / "st_cls")(TEXTS)
    found = similar(TEXTS[:4], TEXTS)
    assert_close(found, (vectors[:4] @ vectors.T).tolist())
    assert_close(similar(TEXTS[0], TEXTS), found[0].tolist())
    one = similar(TEXTS[0], TEXTS[1])
    assert isinstance(one, float) and abs(one - found[0, 1]) < 1e-5
    assert_close(similar([{"source": TEXTS[0], "target": TEXTS[1:3]}]), [found[0, 1:3].tolist()])
    assert_close(similar([], TEXTS).shape, [0, 12])
    assert_close(similar(TEXTS[0], TEXTS[:2], similarity="euclidean")[0], 0.0)
    asked = similar(TEXTS[0], TEXTS[0], source_prompt_name="query")
    by_hand = embedder(fixtures / "st_cls")(TEXTS[0], prompt_name="query") @ vectors[0]
    assert abs(asked - by_hand) < 1e-5
    with pytest.raises(InputError, match="expected two texts"):
        similar("alone")


def test_rerank(fixtures):
    rerank = pipeline("rerank", fixtures / "cross_encoder")
    model = CrossEncoder(fixtures / "cross_encoder")
    expected = model.rank("how", TEXTS, return_documents=True)
    found = rerank("how", TEXTS, return_documents=True)
    assert [row["index"] for row in found] == [row["corpus_id"] for row in expected]
    assert [row["text"] for row in found] == [row["text"] for row in expected]
    assert_close([row["score"] for row in found], [float(row["score"]) for row in expected])
    raw = model.rank("how", TEXTS, top_k=3, activation_fn="identity")
    assert_close(
        [row["score"] for row in rerank("how", TEXTS, function_to_apply="none", top_k=3)],
        [float(row["score"]) for row in raw],
    )
    several = rerank(["how", "what"], [TEXTS, TEXTS[:2]])
    assert [len(answer) for answer in several] == [12, 2]
    assert_close([row["score"] for row in several[0]], [row["score"] for row in found])
    assert rerank(["how", "what"], TEXTS)[0] and rerank("how", []) == []
    assert list(rerank({"query": "how", "passages": TEXTS[:2]} for _ in range(2)))[1]
    windows = rerank("how", [LONG, "a"], on_overflow="window")
    assert rerank.truncated == [] and len(windows) == 2
    for wrong in (("how",), ("how", "text"), (["a", "b"], [["c"]])):
        with pytest.raises(InputError, match="passages"):
            rerank(*wrong)
    with pytest.raises(InputError, match="one label, received 3"):
        pipeline("rerank", fixtures / "zero_shot_entail1")("a", ["b"])


def test_activations_are_names_functions_and_modules(fixtures):
    model = CrossEncoder(fixtures / "cross_encoder")
    pairs = [["a", text] for text in TEXTS]
    raw = model.predict(pairs, activation_fn="identity")
    for activation in ("torch.nn.modules.activation.Sigmoid", torch.nn.Sigmoid(), torch.nn.Sigmoid, None):
        assert_close(model.predict(pairs, activation_fn=activation), (1 / (1 + np.exp(-raw))).tolist())
    assert_close(model.predict(pairs, activation_fn=lambda numbers: numbers * 2), (raw * 2).tolist())
    with pytest.raises(InputError, match="expected an activation of identity"):
        model.predict(pairs, activation_fn=torch.nn.PReLU())
    with pytest.raises(InputError, match="expected pairs of texts, received 'b' at index 1"):
        model.predict([["a", "b"], "b"])
    several = CrossEncoder(fixtures / "zero_shot_entail1")
    assert several.predict(pairs, apply_softmax=True).shape == (12, 3)


def test_published_places_and_results_of_the_ranker(fixtures, tmp_path):
    model = CrossEncoder(fixtures / "cross_encoder", prompts={"find": "find: "})
    pairs = [["a", text] for text in TEXTS]
    prompted = model.predict([[f"find: {first}", second] for first, second in pairs], activation_fn="identity")
    found = model.predict(pairs, "find", None, 4, False, torch.nn.Identity(), False, True, True, "cpu")
    assert isinstance(found, torch.Tensor)
    assert_close(found, prompted.tolist())
    assert_close(model.predict(pairs, prompt="find: ", activation_fn="identity"), prompted.tolist())
    ranked = model.rank("a", iter(TEXTS), 3, True, "find", None, 4, False, torch.nn.Identity(), "cpu")
    assert_close([row["score"] for row in ranked], sorted(prompted.tolist(), reverse=True)[:3])
    assert json.loads(json.dumps(ranked)) == ranked
    rows = model.predict(pairs, convert_to_numpy=False, num_workers=0)
    assert [row.shape for row in rows] == [()] * 12 and all(isinstance(row, torch.Tensor) for row in rows)
    with pytest.raises(InputError, match="prompt_name must be one of 'find', received 32"):
        model.predict(pairs, 32)
    for wrong in (3, None, {"a": "b"}, [3], [None], [[]], ["a", None]):
        with pytest.raises(InputError, match="expected (a pair|pairs) of texts"):
            model.predict(wrong, prompt="find: ")
    model.max_seq_length = 9
    assert model.max_length == 9
    assert_close(
        model.predict([["a", LONG]]), CrossEncoder(fixtures / "cross_encoder", max_length=9).predict([["a", LONG]])
    )
    model.save(tmp_path)
    settings = {
        "activation_fn": "torch.nn.modules.linear.Identity",
        "prompts": {"p": "find: "},
        "default_prompt_name": "p",
    }
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    again = CrossEncoder(tmp_path, processor_kwargs={"model_max_length": 64}, config_kwargs={})
    assert_close(again.predict(pairs), prompted.tolist())
    raw = CrossEncoder(fixtures / "cross_encoder").predict(pairs[:1], activation_fn="identity")
    assert_close(pipeline("rerank", tmp_path)("a", TEXTS[:1])[0]["score"], float(raw[0]))


def test_published_places_and_results_of_the_encoder(fixtures):
    model = SentenceTransformer(
        fixtures / "st_mean", prompts={"other": "o: "}, processor_kwargs={"model_max_length": 9}
    )
    assert model.prompts == {"query": "query: ", "document": "", "passage": "passage: ", "other": "o: "}
    assert model.max_seq_length == 9 and model.tokenize(["a"])["input_ids"].dtype == torch.int64
    query = model.encode_query(TEXTS, None, None, 4, False, "sentence_embedding", None, True, True, "cpu:0")
    assert_close(query, model.encode(TEXTS, prompt="query: ", truncate_dim=99, task="query").tolist())
    with model.truncate_embeddings(4):
        assert model.encode_document(TEXTS, precision="float32").shape == (12, 4)
    assert model.encode([], convert_to_numpy=False) == model.encode([], output_value="token_embeddings") == []
    model.similarity_fn_name = type("Member", (), {"value": "dot"})()
    assert model.similarity_pairwise(query[0], query[0]).shape == () and model.similarity_fn_name == "dot"
    for wrong in ({"text": "a"}, None, 3):
        with pytest.raises(InputError, match="expected a text, or several, received"):
            model.encode(wrong)
    with pytest.raises(InputError, match="received one; pass ranges"):
        model.encode("a", precision="int8")


def test_published_places_and_results_of_bge_m3(fixtures):
    said = {"query_instruction_for_retrieval": "q", "query_instruction_format": "{}\\n{}"}
    said |= {"passage_instruction_for_retrieval": "p: ", "passage_max_length": 8, "truncate_dim": 5}
    model, plain = BGEM3FlagModel(fixtures / "bge_m3", **said), BGEM3FlagModel(fixtures / "bge_m3")
    whole = plain.encode([f"q\n{text}" for text in TEXTS])
    found = model.encode_queries(TEXTS, 4, 64, True, False, True)
    assert found["lexical_weights"] is None
    assert_close(found["dense_vecs"], normalized(whole["dense_vecs"][:, :5]).tolist())
    assert_close(found["colbert_vecs"][1], normalized(whole["colbert_vecs"][1][:, :5]).tolist())
    passages = plain.encode(TEXTS, max_length=8, instruction="p: ")["lexical_weights"]
    assert model.encode_corpus(TEXTS)["lexical_weights"] == passages
    assert plain.convert_id_to_token(passages[:1]) == plain.convert_id_to_token(passages[0])
    assert plain.compute_score([]) == []
    for wrong in (3, None, {"a": "b"}, [3], [None], [[]], ["a", None]):
        with pytest.raises(InputError, match="expected (a pair|pairs) of texts"):
            plain.compute_score(wrong)
    pairs = [[TEXTS[0], LONG]]
    short = BGEM3FlagModel(fixtures / "bge_m3", passage_max_length=8)
    assert short.compute_score(pairs) == plain.compute_score(pairs, max_passage_length=8) != plain.compute_score(pairs)


def test_bge_m3_through_the_task_and_through_files(fixtures, tmp_path):
    embed = embedder(fixtures / "bge_m3")
    answers = embed(TEXTS, outputs=("dense", "sparse", "colbert"))
    assert_close([answer["dense"] for answer in answers], embed(TEXTS).tolist())
    assert_close(answers[3], embed.plain(embed(TEXTS[3], outputs=("dense", "sparse", "colbert"))))
    for to in ("flax", "safetensors"):
        done = convert(fixtures / "bge_m3", tmp_path / to, to, verify=True)
        assert done.comparison.equal
        names = {f"{head}_linear{suffix}" for head in ("sparse", "colbert") for suffix in (".pt", ".safetensors")}
        assert names <= set(done.copied)
    embed.save_pretrained(tmp_path / "saved")
    assert names <= {path.name for path in (tmp_path / "saved").iterdir()}
    for name in ("safetensors", "saved"):
        again = BGEM3FlagModel(tmp_path / name)
        assert_close(again.encode(TEXTS)["dense_vecs"], [answer["dense"].tolist() for answer in answers])


def test_a_saved_encoder_is_the_same(fixtures, tmp_path):
    model = SentenceTransformer(fixtures / "st_mean_noprompt")
    model.save_pretrained(tmp_path / "saved")
    again = SentenceTransformer(tmp_path / "saved")
    assert_close(again.encode(TEXTS), model.encode(TEXTS).tolist())
    assert (again.prompts, again.similarity_fn_name, again.max_seq_length) == (model.prompts, "dot", 32)
    assert isinstance(again.encode("a", convert_to_tensor=True), torch.Tensor)
    assert again.get_embedding_dimension() == 16
    assert again.encode(TEXTS, precision="uint8").dtype == np.uint8


def test_a_folder_of_the_first_versions_has_the_transformer_below(fixtures, tmp_path):
    source, inner = fixtures / "st_mean", tmp_path / "0_Transformer"
    shutil.copytree(source, tmp_path, dirs_exist_ok=True, copy_function=shutil.copyfile)
    tmp_path.chmod(0o755)
    inner.mkdir()
    moved = [path for path in tmp_path.iterdir() if path.is_file() and path.name not in ("modules.json",)]
    for path in moved:
        if path.name != "config_sentence_transformers.json":
            path.rename(inner / path.name)
    modules = json.loads((source / "modules.json").read_text())
    (tmp_path / "modules.json").write_text(json.dumps([{**modules[0], "path": "0_Transformer"}, *modules[1:]]))
    again = SentenceTransformer(tmp_path)
    assert again.max_seq_length == 32 and again.prompts["passage"] == "passage: "
    assert_close(again.encode(TEXTS), embedder(source)(TEXTS).tolist())


def test_what_is_not_served_is_refused(fixtures):
    folder = fixtures / "st_cls"
    for arguments in ({"backend": "onnx"}, {"modules": [1]}):
        with pytest.raises(InputError, match="is not served"):
            SentenceTransformer(folder, **arguments)
    model = made("SentenceTransformer", folder, "{}")
    for arguments in ({"output_value": None}, {"precision": "float8"}, {"device": "cuda:7"}, {"pool": {1: 2}}):
        with pytest.raises(InputError):
            model.encode(["a"], **arguments)


def test_the_command_prints_vectors(fixtures, capsys):
    task = ["run", "--task", "sentence-embedding", "--model", str(fixtures / "bge_m3"), "--format"]
    assert main([*task, "json", "--outputs", "sparse", "--outputs", "dense", "a text"]) == 0
    answer = json.loads(capsys.readouterr().out)["answer"]
    assert list(answer) == ["sparse", "dense"] and len(answer["dense"]) == 16
    for told in ("csv", "text"):
        assert main([*task, told, "a text"]) == 0
