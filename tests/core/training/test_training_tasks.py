"""Each task from a file to a batch and back: the arrays by hand, the answers of a model that knows, and the data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from xlmr_core.config import AutoConfig
from xlmr_core.errors import InputError
from xlmr_core.tokenization import XLMRobertaTokenizer, XLMRobertaTokenizerFast
from xlmr_core.training import data as preparation
from xlmr_core.training import examples as reading
from xlmr_core.training import features as encoding
from xlmr_core.training.data import Data
from xlmr_core.training.lines import rows_of_lines
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.task import IGNORED
from xlmr_core.training.tokens import places_of_words

MINI = Path(__file__).resolve().parents[3] / "weights" / "xlmr-mini"
BOS, PAD, EOS = 0, 1, 2


@pytest.fixture(scope="module")
def tokenizer():
    return XLMRobertaTokenizerFast.from_pretrained(MINI)


@pytest.fixture(scope="module")
def slow():
    return XLMRobertaTokenizer.from_pretrained(MINI)


def json_file(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def data_of(
    folder: Path, tokenizer, task: str, rows: list[dict], eval_rows: list[dict] | None = None, **values
) -> Data:
    given = {"train": json_file(folder / "train.jsonl", rows), "batch_size": 2, **values}
    if eval_rows is not None:
        given["eval"] = json_file(folder / "eval.jsonl", eval_rows)
    return Data.read(Recipe(task=task, **given), tokenizer)


def tokens(tokenizer, row: np.ndarray) -> list[str]:
    return tokenizer.convert_ids_to_tokens([int(n) for n in row if n != PAD])


# ---- Text classification


def test_pairs_and_labels_of_texts(tmp_path: Path, tokenizer) -> None:
    rows = [{"premise": "a b", "hypothesis": "c", "label": "yes"}, {"premise": "d", "hypothesis": "e", "label": "no"}]
    data = data_of(tmp_path, tokenizer, "text-classification", rows)
    assert data.task.settings() == {
        "id2label": {0: "no", 1: "yes"},
        "label2id": {"no": 0, "yes": 1},
        "problem_type": "single_label_classification",
    }
    batch, numbers = data.train[0], data.train.numbers(0).tolist()
    for row, label, number in zip(batch["input_ids"], batch["labels"], numbers, strict=True):
        expected = tokenizer(rows[number]["premise"], rows[number]["hypothesis"])["input_ids"]
        assert row[row != PAD].tolist() == expected and label == [1, 0][number]
    assert (batch["attention_mask"] == (batch["input_ids"] != PAD)).all()
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("labels", "problem", "expected"),
    [
        ([3, 10], "single_label_classification", [0, 1]),
        (["3", "10"], "single_label_classification", [0, 1]),
        ([3.5, 4], "regression", [3.5, 4.0]),
        (["3.5", "4"], "regression", [3.5, 4.0]),
        (["v1.5", "4"], "single_label_classification", [1, 0]),
        ([["a", "b"], ["b"]], "multi_label_classification", [[1, 1], [0, 1]]),
        ([["a", "b"], "b"], "multi_label_classification", [[1, 1], [0, 1]]),
        ([["ab", "2.5"], 2.5], "multi_label_classification", [[1, 1], [1, 0]]),
        ([[], ["b"]], "multi_label_classification", [[0], [1]]),
    ],
)
def test_labels_say_what_the_problem_is(tmp_path: Path, tokenizer, labels, problem: str, expected: list) -> None:
    rows = [{"text": "a", "label": label} for label in labels]
    data = data_of(tmp_path, tokenizer, "text-classification", rows, rows)
    assert data.task.problem == data.task.settings()["problem_type"] == problem
    batch = data.train[0]
    order = np.argsort(data.train.numbers(0))
    assert batch["labels"][order].tolist() == expected
    assert batch["labels"].dtype == (np.int64 if problem.startswith("single") else np.float32)
    # A model that knows is right.
    assert data.evaluation is not None
    one_hot = problem == "single_label_classification"

    def model(batch):
        wanted = batch["labels"]
        if one_hot:
            return {"logits": np.eye(2)[wanted]}
        return {"logits": wanted.reshape(len(wanted), -1) * 2 - 1 if problem[0] == "m" else wanted[:, None]}

    answers = data.evaluation.answers((one, model(one)) for one in data.evaluation)
    assert answers.predicted == answers.gold == expected


def test_labels_have_the_order_of_the_recipe_or_of_the_model(tmp_path: Path, tokenizer) -> None:
    from xlmr_core.config import XLMRobertaConfig

    rows = [{"text": "a", "label": "b"}, {"text": "a", "label": "a"}]
    recipe = Recipe(task="text-classification", train=json_file(tmp_path / "t.jsonl", rows))
    assert Data.read(recipe, tokenizer).task.labels == ("a", "b")
    assert Data.read(recipe.replace(labels=["b", "a", "c"]), tokenizer).task.labels == ("b", "a", "c")
    named = XLMRobertaConfig(id2label={0: "b", 1: "a"}, label2id={"b": 0, "a": 1})
    assert Data.read(recipe, tokenizer, named).task.labels == ("b", "a")
    assert Data.read(recipe, tokenizer, XLMRobertaConfig()).task.labels == ("a", "b")
    with pytest.raises(InputError, match="received 'b'"):
        Data.read(recipe.replace(labels=["a", "B"]), tokenizer)
    short = XLMRobertaConfig(max_position_embeddings=34)
    with pytest.raises(InputError, match="max_length of at most 32"):
        Data.read(recipe, tokenizer, short)


def test_a_label_that_training_does_not_know_is_refused(tmp_path: Path, tokenizer) -> None:
    rows = [{"text": "a", "label": "good"}, {"text": "a", "label": "bad"}]
    with pytest.raises(InputError, match="expected eval to have labels of the 2 labels.*received 'god'.*'good'"):
        data_of(tmp_path, tokenizer, "text-classification", rows, [{"text": "a", "label": "god"}])
    with pytest.raises(InputError, match="expected files to train on"):
        Data.read(Recipe(task="text-classification"), tokenizer)


def test_a_label_of_another_problem_is_refused_with_its_line(tmp_path: Path, tokenizer) -> None:
    numbers = [{"text": "a", "label": 1.5}, {"text": "a", "label": 2}]
    with pytest.raises(InputError, match=r"eval\.jsonl, line 1: expected a finite number.*received 'n/a'"):
        data_of(tmp_path, tokenizer, "text-classification", numbers, [{"text": "a", "label": "n/a"}])
    texts = [{"text": "a", "label": "x"}, {"text": "a", "label": "y"}]
    with pytest.raises(InputError, match=r"eval\.jsonl, line 1: expected one label, received the list \['x', 'y'\]"):
        data_of(tmp_path, tokenizer, "text-classification", texts, [{"text": "a", "label": ["x", "y"]}])
    with pytest.raises(InputError, match=r"numbers alone, .* received 'n/a' beside 1\.5; .* 'single_label_class"):
        data_of(tmp_path, tokenizer, "text-classification", [*numbers, {"text": "a", "label": "n/a"}])
    several = {"problem": "multi_label_classification"}
    batch = data_of(tmp_path, tokenizer, "text-classification", texts, **several).train[0]
    assert batch["labels"].sum() == 2 and batch["labels"].shape == (2, 2)


def test_more_labels_than_are_remembered_are_refused(tmp_path: Path, tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(reading, "MOST_LABELS", 3)
    monkeypatch.setattr(preparation, "MOST_LABELS", 3)
    rows = [{"text": "a", "label": n} for n in range(5)]
    assert len(data_of(tmp_path, tokenizer, "text-classification", rows[:3]).task.labels) == 3
    with pytest.raises(InputError, match="expected at most 3 labels, received more"):
        data_of(tmp_path, tokenizer, "text-classification", rows)
    assert data_of(tmp_path, tokenizer, "text-classification", rows, problem="regression").task.labels == ()


# ---- Token classification


def test_places_of_words() -> None:
    assert places_of_words("Don't go", ["Do", "n't", "go"]).tolist() == [0, 2, 6]  # type: ignore[union-attr]
    assert places_of_words("du kommer", ["de", "le", "kommer"]) is None
    assert places_of_words("a, b", ["a", "b"]) is None, "a comma is no space"


@pytest.mark.parametrize("kind", ["fast", "slow"])
def test_the_first_token_of_a_word_has_its_tag(tmp_path: Path, tokenizer, slow, kind: str) -> None:
    tokenizer = {"fast": tokenizer, "slow": slow}[kind]
    words, tags = ["Universitätsbibliothek", "(", "Oslo", ")"], ["B-ORG", "O", "B-LOC", "O"]
    rows = [{"tokens": words, "tags": tags, "text": "Universitätsbibliothek (Oslo)"}] * 2
    data = data_of(tmp_path, tokenizer, "token-classification", rows)
    assert data.task.labels == ("O", "B-LOC", "B-ORG") and "label2id" in data.task.settings()
    batch = data.train[0]
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    expected = tokenizer("Universitätsbibliothek (Oslo)")["input_ids"]
    assert ids.tolist() == expected
    marked = [
        (piece, data.task.labels[label])
        for piece, label in zip(tokens(tokenizer, ids), labels, strict=True)
        if label != IGNORED
    ]
    assert [tag for _, tag in marked] == tags
    assert marked[0][0].startswith("▁Univers"[: len(marked[0][0])]) and labels[0] == labels[-1] == IGNORED


def test_words_with_spaces_between_are_the_tokenizers_own_words(tmp_path: Path, tokenizer) -> None:
    words = ["Ada", "lives", "in", "Oslo", "."]
    rows = [{"tokens": words, "tags": ["B-PER", "O", "O", "B-LOC", "O"]}] * 2
    batch = data_of(tmp_path, tokenizer, "token-classification", rows).train[0]
    split = tokenizer(words, is_split_into_words=True)
    assert batch["input_ids"][0].tolist() == split["input_ids"]
    firsts = [n for n, word in enumerate(split.word_ids()) if word is not None and word != (split.word_ids()[n - 1])]
    assert np.flatnonzero(batch["labels"][0] != IGNORED).tolist() == firsts


def test_characters_make_a_text_and_tags_come_back_for_each(tmp_path: Path, tokenizer) -> None:
    text = "私は東京都に住んでいます"
    gold = ["O", "O", "B-LOC", "I-LOC", "I-LOC", *["O"] * (len(text) - 5)]
    rows = [{"tokens": list(text), "tags": gold, "unit": "char", "lang": "ja"}] * 2
    data = data_of(tmp_path, tokenizer, "token-classification", rows, rows)
    batch = data.train[0]
    assert batch["input_ids"][0].tolist() == tokenizer(text)["input_ids"]
    assert data.evaluation is not None
    count = len(data.task.labels)

    def model(batch):
        return {"logits": np.eye(count)[np.where(batch["labels"] == IGNORED, 0, batch["labels"])]}

    answers = data.evaluation.answers((one, model(one)) for one in data.evaluation)
    assert answers.gold == [gold, gold] and answers.languages == ["ja", "ja"]
    assert all(len(tags) == len(gold) for tags in answers.predicted)
    # Where a token begins with a character its tag is right, and the others of its token go on.
    assert answers.predicted[0][2].endswith("-LOC") and "B-LOC" not in answers.predicted[0][3:]


def test_words_that_were_cut_off_are_outside(tmp_path: Path, tokenizer) -> None:
    words = ["Oslo"] * 30
    rows = [{"tokens": words, "tags": ["B-LOC", *["O"] * 28, "B-LOC"]}] * 2
    data = data_of(tmp_path, tokenizer, "token-classification", rows, rows, max_length=16)
    assert data.train[0]["input_ids"].shape == (2, 16) and data.evaluation is not None
    always = {"logits": np.eye(2)[np.ones((2, 16), int)]}
    answers = data.evaluation.answers([(data.evaluation[0], always)])
    assert len(answers.predicted[0]) == 30 and answers.predicted[0][0] == "B-LOC" and answers.predicted[0][-1] == "O"


# ---- Questions


CONTEXT = (
    "Ada Lovelace lived in London. " * 12 + "Her teacher was Mary Somerville, of Edinburgh. " + "It rained a lot. " * 12
)


def question(answer: str, start: int | None = None) -> dict:
    start = CONTEXT.index(answer) if start is None else start
    return {"question": "Who taught her?", "context": CONTEXT, "answers": [{"text": answer, "answer_start": start}]}


@pytest.mark.parametrize("kind", ["fast", "slow"])
def test_windows_know_where_the_answer_is(tmp_path: Path, tokenizer, slow, kind: str) -> None:
    tokenizer = {"fast": tokenizer, "slow": slow}[kind]
    rows = [question("Mary Somerville"), {**question("London", CONTEXT.index("London")), "question": "Where?"}]
    data = data_of(tmp_path, tokenizer, "question-answering", rows, rows, max_length=48, doc_stride=16, batch_size=64)
    batch = data.train[0]
    assert batch["input_ids"].shape[1] <= 48 and len(batch["input_ids"]) > 10
    found = set()
    for ids, start, end in zip(batch["input_ids"], batch["start_positions"], batch["end_positions"], strict=True):
        assert (start == 0) == (end == 0) and start <= end
        if start:
            found.add(tokenizer.decode(ids[start : end + 1]).strip())
    # Tokens of a word may end with the mark behind it.
    assert {text.rstrip(",.") for text in found} == {"Mary Somerville", "London"}
    assert (batch["start_positions"] == 0).any()
    assert data.evaluation is not None

    def model(batch):
        size = batch["input_ids"].shape[1]
        sides = {"start_logits": "start_positions", "end_logits": "end_positions"}
        return {name: 20.0 * np.eye(size, dtype=np.float32)[batch[side]] for name, side in sides.items()}

    answers = data.evaluation.answers((one, model(one)) for one in data.evaluation)
    assert answers.gold == [["Mary Somerville"], ["London"]]
    assert [text.rstrip(",.") for text in answers.predicted] == ["Mary Somerville", "London"]


def test_questions_without_an_answer_may_get_none(tmp_path: Path, tokenizer) -> None:
    rows = [{"question": "Why?", "context": "It rains.", "answers": []}] * 2
    data = data_of(tmp_path, tokenizer, "question-answering", rows, rows)
    assert data.train[0]["start_positions"].tolist() == [0, 0] and data.evaluation is not None
    size = data.evaluation[0]["input_ids"].shape[1]
    sure = dict.fromkeys(("start_logits", "end_logits"), 20.0 * np.eye(size, dtype=np.float32)[[0, 0]])
    answers = data.evaluation.answers([(data.evaluation[0], sure)])
    assert (answers.predicted, answers.gold) == (["", ""], [[], []])


ANSWERED = {"question": "What?", "context": "It rains.", "answers": [{"text": "rains", "answer_start": 3}]}
UNANSWERED = {**ANSWERED, "answers": []}
PAIR = {"text": "a", "text_en": "b"}
SCORED_PAIR = {**PAIR, "score": 1}


@pytest.mark.parametrize(
    ("task", "train", "eval_row", "test_row", "kind"),
    [
        ("question-answering", ANSWERED, None, UNANSWERED, True),
        ("question-answering", ANSWERED, ANSWERED, UNANSWERED, True),
        ("question-answering", UNANSWERED, ANSWERED, ANSWERED, False),
        ("question-answering", UNANSWERED, None, None, True),
        ("sentence-embedding", PAIR, None, SCORED_PAIR, "spearman"),
        ("sentence-embedding", SCORED_PAIR, None, PAIR, "accuracy"),
        ("sentence-embedding", SCORED_PAIR, None, None, "spearman"),
        ("sentence-embedding", PAIR, SCORED_PAIR, None, "spearman"),
    ],
)
def test_what_is_looked_at_says_what_is_counted(
    tmp_path: Path, tokenizer, task, train, eval_row, test_row, kind
) -> None:
    test = {} if test_row is None else {"test": json_file(tmp_path / "test.jsonl", [test_row])}
    data = data_of(tmp_path, tokenizer, task, [train], None if eval_row is None else [eval_row], **test)
    found = data.task.metric if task == "sentence-embedding" else data.task._options.handle_impossible_answer
    assert found == kind


def test_a_question_without_room_for_its_context_is_shown(tmp_path: Path, tokenizer) -> None:
    long = {"question": "Why oh why " * 20, "context": CONTEXT, "answers": []}
    with pytest.raises(
        InputError, match=r"received one of \d+ tokens, 'Why oh why .*max_length is 48; leave the row out"
    ):
        data_of(tmp_path, tokenizer, "question-answering", [question("London"), long], max_length=48)
    data = data_of(tmp_path, tokenizer, "question-answering", [question("London")] * 2)
    assert data.task.settings() == {"num_labels": 2}


# ---- Choices


def test_choices_have_an_axis_and_batches_of_one_number(tmp_path: Path, tokenizer) -> None:
    rows = [
        {"prompt": "p", "choices": ["a", "a longer one", "c"][:count], "label": count - 1} for count in (2, 3, 2, 3, 2)
    ]
    data = data_of(tmp_path, tokenizer, "multiple-choice", rows, rows)
    for step in range(len(data.train)):
        batch, numbers = data.train[step], data.train.numbers(step)
        count = batch["input_ids"].shape[1]
        assert {len(rows[n]["choices"]) for n in numbers.tolist()} == {count}
        assert batch["labels"].tolist() == [count - 1] * 2
        first = rows[int(numbers[0])]
        for row, mask, choice in zip(batch["input_ids"][0], batch["attention_mask"][0], first["choices"], strict=True):
            assert row[mask == 1].tolist() == tokenizer("p", choice)["input_ids"] and (row[mask == 0] == PAD).all()
    assert data.evaluation is not None
    results = ((one, {"logits": np.eye(one["input_ids"].shape[1])[one["labels"]]}) for one in data.evaluation)
    answers = data.evaluation.answers(results)
    assert answers.predicted == answers.gold == [1, 2, 1, 2, 1]


# ---- Vectors and passages


def test_pairs_triples_and_scores_stack_their_texts(tmp_path: Path, tokenizer) -> None:
    pairs = [{"text": f"a {n}", "text_en": f"b {n // 2}"} for n in range(4)]
    data = data_of(tmp_path, tokenizer, "sentence-embedding", pairs, batch_size=4)
    batch, numbers = data.train[0], data.train.numbers(0).tolist()
    for place, number in enumerate(numbers):
        for row, side in ((place, "text"), (place + 4, "text_en")):
            ids = batch["input_ids"][row]
            assert ids[ids != PAD].tolist() == tokenizer(pairs[number][side])["input_ids"]
    together = batch["group"][np.argsort(numbers)]
    assert together[0] == together[1] != together[2] == together[3] and "labels" not in batch
    triples = [{**pair, "negative": "c"} for pair in pairs]
    data = data_of(tmp_path, tokenizer, "sentence-embedding", triples, batch_size=4)
    assert len(data.train[0]["input_ids"]) == 12 and data.task.counted(data.train[0]) == 4
    scored = [{**pair, "score": 2.5} for pair in pairs]
    data = data_of(tmp_path, tokenizer, "sentence-embedding", scored, scored)
    assert data.train[0]["labels"].tolist() == [2.5, 2.5] and "group" not in data.train[0]
    assert data.task.metric == "spearman" and data.evaluation is not None
    outputs = [(one, {"embeddings": np.arange(8.0).reshape(4, 2)}) for one in data.evaluation]
    answers = data.evaluation.answers(outputs)
    assert answers.gold == [2.5] * 4 and np.array(answers.predicted).shape == (4, 2, 2)
    assert sorted(vector[0, 0] for vector in answers.predicted[:2]) == [0.0, 2.0]


def test_rows_of_one_id_find_each_other_anew_at_each_step(tmp_path: Path, tokenizer) -> None:
    texts = {"1": ["eins", "one", "un"], "2": ["zwei", "two", "deux"]}
    rows = [{"id": key, "text": text} for key, several in texts.items() for text in several]
    data = data_of(tmp_path, tokenizer, "sentence-embedding", rows, batch_size=6)
    seen = set()
    for step in range(20):
        batch = data.train[step]
        decoded = [tokenizer.decode(ids[ids > EOS]).strip() for ids in batch["input_ids"]]
        for first, other, number in zip(decoded[:6], decoded[6:], data.train.numbers(step).tolist(), strict=True):
            assert first == rows[number]["text"] != other and other in texts[rows[number]["id"]]
            seen.add((first, other))
    assert len(seen) == 12, "each with each other of its id"
    alone = data_of(tmp_path, tokenizer, "sentence-embedding", [{"id": "1", "text": "eins"}])
    assert np.array_equal(*np.split(alone.train[0]["input_ids"], 2))


def test_passages_of_other_queries_are_drawn(tmp_path: Path, tokenizer) -> None:
    rows = [{"query": f"frage {n}", "passage": f"antwort {n // 2}", "lang": "de"} for n in range(12)]
    rows += [{"query": f"q {n}", "passage": f"answer {n}", "lang": "en"} for n in range(6)]
    data = data_of(tmp_path, tokenizer, "rerank", rows, rows, negatives=3)
    assert data.task.settings() == {"num_labels": 1, "problem_type": "multi_label_classification"}
    drawn = set()
    for step in range(6):
        batch, numbers = data.train[step], data.train.numbers(step).tolist()
        assert batch["labels"].tolist() == [[1.0]] * 2 + [[0.0]] * 6 and batch["labels"].dtype == np.float32
        for place, ids in enumerate(batch["input_ids"]):
            own = rows[numbers[place % 2]]
            row = ids[ids != PAD].tolist()
            passages = [
                other["passage"] for other in rows if tokenizer(own["query"], other["passage"])["input_ids"] == row
            ]
            assert passages and (passages[0] == own["passage"]) == (place < 2)
            assert passages[0].startswith("antwort" if own["lang"] == "de" else "answer")
            drawn.add(passages[0])
    assert len(drawn) == 12
    assert data.evaluation is not None
    answers = data.evaluation.answers((one, {"logits": one["labels"]}) for one in data.evaluation)
    assert answers.predicted == [[1, 0, 0, 0]] * 18 and answers.gold == [[1, 0, 0, 0]] * 18
    # Before anything starts, also where one of several languages has too few.
    for train, eval_rows in ((rows[-6:], None), (rows[:14], None), (rows[:12], rows[-3:])):
        with pytest.raises(InputError, match="expected [63] other passages for each query, found fewer in en"):
            data_of(tmp_path, tokenizer, "rerank", train, eval_rows, negatives=6 if eval_rows is None else 3)
    with pytest.raises(InputError, match="received a row without negatives and the recipe's negatives=0"):
        data_of(tmp_path, tokenizer, "rerank", rows, negatives=0)
    given = [{"query": "q", "passage": "p", "negatives": ["n"]}]
    assert len(data_of(tmp_path, tokenizer, "rerank", given, negatives=0).train[0]["input_ids"]) == 2


def test_every_right_passage_of_a_query_is_none_of_its_others(tmp_path: Path, tokenizer) -> None:
    rows = [{"query": "q", "passage": f"right {n}"} for n in range(3)] + [{"query": "r", "passage": "wrong"}]
    rows.append({"query": "q", "passage": "right 3", "negatives": ["n"]})
    data = data_of(tmp_path, tokenizer, "rerank", rows, negatives=1, batch_size=1)
    wrong = tokenizer("q", "wrong")["input_ids"]
    for step in range(20):
        ids = data.train[step]["input_ids"][1]
        (number,) = data.train.numbers(step).tolist()
        assert number > 2 or ids[ids != PAD].tolist() == wrong
    with pytest.raises(InputError, match="expected 2 other passages for each query, found fewer"):
        data_of(tmp_path, tokenizer, "rerank", rows, negatives=2)


def test_a_passage_that_most_queries_share_hides_no_others(tmp_path: Path, tokenizer) -> None:
    rows = [{"query": f"q {n}", "passage": "p" if n else "the other"} for n in range(400)]
    data = data_of(tmp_path, tokenizer, "rerank", rows, negatives=1, batch_size=64)
    other = tokenizer.convert_tokens_to_ids("▁other")
    batch = data.train[0]
    assert (batch["input_ids"] == other).any(axis=1).sum() >= 63, "it is found among 400"


def test_pairs_are_evaluated_with_scores_or_without(tmp_path: Path, tokenizer) -> None:
    pair = {"text": "a", "text_en": "b"}
    task = "sentence-embedding"
    assert data_of(tmp_path, tokenizer, task, [pair] * 2, [pair]).task.metric == "accuracy"
    with pytest.raises(InputError, match="expected pairs that all have scores, or none that has one, in eval"):
        data_of(tmp_path, tokenizer, task, [pair] * 2, [pair, {**pair, "score": 1}])
    test = json_file(tmp_path / "test.jsonl", [{**pair, "score": 1}])
    with pytest.raises(InputError, match="in eval and test, received both"):
        data_of(tmp_path, tokenizer, task, [pair] * 2, [pair], test=test)


def test_a_width_above_the_models_is_refused(tmp_path: Path, tokenizer) -> None:
    rows = json_file(tmp_path / "t.jsonl", [{"text": "a", "text_en": "b"}])
    config = AutoConfig.from_pretrained(MINI)
    recipe = Recipe(task="sentence-embedding", train=rows, matryoshka=[64, config.hidden_size])
    assert Data.read(recipe, tokenizer, config)
    with pytest.raises(InputError, match=f"widths of at most {config.hidden_size}, the model's, received 4096"):
        Data.read(recipe.replace(matryoshka=[4096]), tokenizer, config)


def test_given_passages_are_used_and_long_ones_cut(tmp_path: Path, tokenizer) -> None:
    rows = [{"query": "q " * 50, "passage": "p " * 50, "negatives": ["n " * 3, "m"]}] * 2
    batch = data_of(tmp_path, tokenizer, "rerank", rows, max_length=32).train[0]
    assert batch["input_ids"].shape == (6, 32) and batch["labels"].sum() == 2
    for ids in batch["input_ids"]:
        row = ids[ids != PAD]
        assert row[0] == BOS and row[-1] == EOS and (row == EOS).sum() == 3


# ---- Lines


def lines_file(folder: Path, lines: list[str]) -> str:
    path = folder / "de.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_masked_lines_have_labels_where_tokens_are_hidden(tmp_path: Path, tokenizer) -> None:
    path = lines_file(tmp_path, [f"Das ist der Satz Nummer {n} von vielen." for n in range(16)])
    recipe = Recipe(task="masked-language-modeling", train=path, eval=path, batch_size=16)
    data = Data.read(recipe, tokenizer, multiple=8)
    one, two = data.train[0], data.train[1]
    assert one["input_ids"].shape[1] % 8 == 0 and set(one) == {"input_ids", "attention_mask", "labels"}
    for batch in (one, two):
        hidden = batch["labels"] != IGNORED
        ordinary = (batch["attention_mask"] == 1).sum() - 32
        assert hidden.sum() == round(0.15 * ordinary) and (batch["attention_mask"][hidden] == 1).all()
    again = Data.read(recipe, tokenizer, multiple=8).train[1]
    assert all(np.array_equal(two[name], again[name]) for name in two)
    assert data.evaluation is not None
    answers = data.evaluation.answers((batch, {"loss": np.float32(2.0)}) for batch in data.evaluation)
    assert answers.predicted == [2.0] and answers.languages == ["de"]
    assert answers.gold == [int((data.evaluation[0]["labels"] != IGNORED).sum())]


def test_lines_without_a_token_to_hide_are_left_out(tmp_path: Path, tokenizer) -> None:
    path = lines_file(tmp_path, ["eins", "<unk>", "zwei", "<unk> <unk>"])
    recipe = Recipe(task="masked-language-modeling", train=path, eval=path, batch_size=1)
    data = Data.read(recipe, tokenizer)
    assert data.train.features.example.tolist() == [0, 2] and data.evaluation is not None
    assert all(data.task.counted(batch) for batch in data.evaluation)
    # Put together with others they stay.
    long = lines_file(tmp_path, ["eins", "<unk> <unk> <unk> <unk>"] * 6)
    packed = Data.read(recipe.replace(train=long, eval=(), packing=True, max_length=16), tokenizer).train.features
    assert {packed.windows(row) for row in range(len(packed.examples))} == {1}
    assert (packed.take([0])[0].arrays["input_ids"] == tokenizer.unk_token_id).any()
    alone = lines_file(tmp_path, ["<unk>", "<unk> <unk>"])
    with pytest.raises(InputError, match="expected rows to train on, received none"):
        Data.read(recipe.replace(train=alone, eval=()), tokenizer)


def test_whole_words_are_hidden_and_typed(tmp_path: Path, tokenizer) -> None:
    path = lines_file(tmp_path, ["Plants create food through photosynthesis."] * 8)
    recipe = Recipe(
        task="masked-language-modeling", train=path, batch_size=8, whole_words=1.0, as_typed=True, masking_rate=0.3
    )
    batch = Data.read(recipe, tokenizer).train[0]
    lone, full_stop = tokenizer.convert_tokens_to_ids(["▁", "."])
    behind = [
        ids[n + 1 : n + 3].tolist()
        for ids in batch["input_ids"]
        for n in np.flatnonzero(ids == tokenizer.mask_token_id)
    ]
    assert [lone, full_stop] in behind and [full_stop, EOS] not in behind
    whole = [set(tokens(tokenizer, np.array(row[row != IGNORED]))) for row in batch["labels"]]
    of_word = set(tokenizer.tokenize("photosynthesis"))
    assert all(of_word <= found or not of_word & found for found in whole)


def test_causal_lines_are_their_own_labels(tmp_path: Path, tokenizer) -> None:
    path = lines_file(tmp_path, ["eins", "zwei und drei"])
    data = Data.read(Recipe(task="causal-language-modeling", train=path, batch_size=2), tokenizer)
    batch = data.train[0]
    assert (batch["labels"] == np.where(batch["attention_mask"] == 1, batch["input_ids"], IGNORED)).all()
    assert data.task.settings() == {"is_decoder": True}
    assert data.task.counted(batch) == batch["attention_mask"].sum() - 2


def test_rows_are_filled_with_lines_of_one_document() -> None:
    begins = np.array([True, False, False, True, False, False])
    assert rows_of_lines(np.array([3, 4, 4, 1, 1, 20]), begins, 8).tolist() == [0, 2, 3, 5]
    assert rows_of_lines(np.array([9, 1]), np.array([True, False]), 8).tolist() == [0, 1]
    assert rows_of_lines(np.array([], int), np.array([], bool), 8).tolist() == []


@pytest.mark.parametrize("at_once", [True, False])
def test_short_lines_are_put_together(
    tmp_path: Path, tokenizer, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    if not at_once:
        monkeypatch.setattr(encoding, "MOST_AT_ONCE", 0)
    documents = [[f"Satz {n} im Text {d}." for n in range(6)] for d in range(3)]
    path = lines_file(tmp_path, [line for document in documents for line in [*document, ""]])
    recipe = Recipe(task="causal-language-modeling", train=path, batch_size=1, max_length=32, packing=True)
    train = Data.read(recipe, tokenizer).train
    assert len(train) < 12
    found = []
    for step in range(len(train)):
        ids = train[step]["input_ids"][0]
        assert len(ids) <= 32
        found.append(tokenizer.decode(ids, skip_special_tokens=True))
    whole = [" ".join(document) for document in documents]
    assert all(any(text in document for document in whole) for text in found), "no row is of two documents"
    if at_once:
        assert sum(map(len, found)) + len(found) - 3 == sum(map(len, whole)), "and nothing is lost"
    assert all(text.count("Satz") > 1 for text in found if text.startswith("Satz 0"))


def test_a_long_line_makes_several_rows(tmp_path: Path, tokenizer) -> None:
    path = lines_file(tmp_path, ["wort " * 100, "kurz"])
    train = Data.read(Recipe(task="causal-language-modeling", train=path, batch_size=1, max_length=32), tokenizer).train
    lengths = sorted(train[step]["input_ids"].shape[1] for step in range(len(train)))
    assert lengths[-1] == 32 and len(lengths) > 4


def test_what_is_encoded_late_is_what_is_encoded_at_once(tmp_path: Path, tokenizer, monkeypatch) -> None:
    rows = [{"text": "wort " * (n % 30 + 1), "label": n % 2, "lang": "de" if n % 3 else "zh"} for n in range(200)]
    whole = data_of(tmp_path, tokenizer, "text-classification", rows).train.features
    monkeypatch.setattr(encoding, "MOST_AT_ONCE", 0)
    late = data_of(tmp_path, tokenizer, "text-classification", rows).train.features
    assert late._encoded is None and len(whole) == len(late) == 200
    for one, other in zip(whole.take(range(200)), late.take(range(200)), strict=True):
        assert np.array_equal(one.arrays["input_ids"], other.arrays["input_ids"])
    assert np.corrcoef(whole.lengths, late.lengths)[0, 1] > 0.95
    assert late.lengths.sum() == pytest.approx(whole.lengths.sum(), rel=0.1)
