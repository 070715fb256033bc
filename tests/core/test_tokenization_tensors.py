"""Arrays and tensors: what ``return_tensors`` and ``pad`` give back, what moves, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.tokenization_models import MIXED, small_model
from xlmr_core.backends import installed
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import (
    BatchEncoding,
    PreTrainedTokenizerBase,
    XLMRobertaTokenizer,
    XLMRobertaTokenizerFast,
)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "sentencepiece.bpe.model"
    path.write_bytes(small_model())
    return path


@pytest.fixture(params=[XLMRobertaTokenizer, XLMRobertaTokenizerFast], ids=["slow", "fast"])
def tokenizer(request: pytest.FixtureRequest, model_file: Path) -> PreTrainedTokenizerBase:
    return request.param(model_file)  # type: ignore[no-any-return]


def test_to_moves_what_can_move() -> None:
    class Tensor:
        def to(self, device: str, non_blocking: bool) -> str:
            return f"on {device}, {non_blocking}"

    encoded = BatchEncoding({"input_ids": Tensor(), "length": [1]})
    assert encoded.to("meta", non_blocking=True) is encoded
    assert encoded.data == {"input_ids": "on meta, True", "length": [1]}


@pytest.mark.parametrize("dtype", [np.float16, None, {"device": "cpu"}], ids=str)
def test_to_casts_nothing(dtype: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Tensor:
        def to(self, device: object, non_blocking: bool) -> None:
            raise AssertionError("cast")

    tensor = Tensor()
    assert BatchEncoding({"input_ids": tensor}).to(dtype)["input_ids"] is tensor
    assert "expected a device" in caplog.text


def test_numpy_tensors(tokenizer: PreTrainedTokenizerBase) -> None:
    one = tokenizer("Paris", return_tensors="np")
    assert one["input_ids"].shape == (1, len(tokenizer.encode("Paris")))
    batch = tokenizer(MIXED, padding=True, return_tensors="np", return_offsets_mapping=True)
    assert batch["offset_mapping"].shape == (*batch["input_ids"].shape, 2)
    assert batch["input_ids"].dtype == np.int64
    assert tokenizer([], return_tensors="np")["input_ids"].shape == (0, 0)


def test_other_tensors_go_through_the_backend(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xlmr_core import backends

    monkeypatch.setattr(backends, "to_tensor", lambda name, array: (name, array.shape))
    assert tokenizer(["a"], return_tensors="jax")["input_ids"] == ("jax", (1, 3))


# What the frameworks make of Python's numbers in the original; arrays and NumPy's numbers keep their dtype.
DTYPES = [
    ([[1, 2]], {"np": "int64", "pt": "int64", "tf": "int32"}),
    ([[]], {"np": "int64", "pt": "int64", "tf": "int32"}),
    ([], {"np": "int64", "pt": "int64", "tf": "int32"}),
    ([2**40], {"np": "int64", "pt": "int64", "tf": "int64"}),
    ([0.5, 1], {"np": "float64", "pt": "float32", "tf": "float32"}),
    ([True], {"np": "bool", "pt": "bool", "tf": "bool"}),
    *(
        (value, dict.fromkeys(("np", "pt", "tf"), dtype))
        for dtype in ("float32", "float64", "int32", "int64")
        for value in (np.ones((2, 1), dtype), [np.ones(2, dtype)], [np.ones(1, dtype)[0]], [[np.ones(1, dtype)[0]]])
    ),
]


@pytest.mark.parametrize("framework", ["np", "pt", "tf"])
@pytest.mark.parametrize(("value", "dtypes"), DTYPES)
def test_dtypes(value: Any, dtypes: dict[str, str], framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from xlmr_core import backends

    monkeypatch.setattr(backends, "to_tensor", lambda name, array: array)
    assert BatchEncoding({"labels": value}, tensor_type=framework)["labels"].dtype == dtypes[framework]


@pytest.mark.parametrize("error", [TypeError, RuntimeError])
def test_tensors_that_numpy_cannot_read(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as bfloat16 (TypeError), or with a gradient (RuntimeError)."""
    from xlmr_core import backends

    class Tensor:
        def __array__(self, *_: Any, **__: Any) -> None:
            raise error("cannot")

        def tolist(self) -> list[float]:
            return [0.5]

    monkeypatch.setattr(backends, "to_tensor", lambda name, array: array)
    labels = BatchEncoding({"labels": [Tensor(), Tensor()]}, tensor_type="pt")["labels"]
    assert (labels.tolist(), labels.dtype) == ([[0.5], [0.5]], np.float32)
    with pytest.raises(TokenizerError, match="rows of one length"):
        BatchEncoding({"labels": [Tensor(), [0.5, 0.5]]}, tensor_type="pt")


@pytest.mark.parametrize("text", ["a", ["a", "b"], np.array(["a"]), np.array(["a"], dtype=object)], ids=repr)
@pytest.mark.parametrize("framework", ["pt", "jax"])
def test_a_column_of_text_makes_no_tensor(tokenizer: PreTrainedTokenizerBase, framework: str, text: Any) -> None:
    if not installed(framework):
        pytest.skip(f"the framework of {framework!r} is not installed")
    with pytest.raises(TokenizerError, match=r"tensor of 'source', received text str_? .*'a'.*remove this column"):
        tokenizer.pad([{"input_ids": [1], "attention_mask": [1], "source": text}], return_tensors=framework)


def test_a_column_of_text_in_numpy(tokenizer: PreTrainedTokenizerBase) -> None:
    """NumPy has arrays of text, and the original makes them."""
    rows = [{"input_ids": [1], "source": "a"}, {"input_ids": [1, 2], "source": "b"}]
    assert tokenizer.pad(rows, return_tensors="np")["source"].tolist() == ["a", "b"]
    ragged = [{"input_ids": [1], "source": ["a"]}, {"input_ids": [1], "source": ["b", "c"]}]
    with pytest.raises(TokenizerError, match="remove this column"):
        tokenizer.pad(ragged, return_tensors="np")


@pytest.mark.parametrize(
    "given",
    [
        [{"input_ids": np.array([0, 5, 2], np.int32)}, {"input_ids": np.array([0, 2], np.int32)}],
        {"input_ids": [np.array([0, 5, 2]), np.array([0, 2])]},
    ],
)
def test_pad_gives_arrays_for_arrays(tokenizer: PreTrainedTokenizerBase, given: Any) -> None:
    padded = tokenizer.pad(given)
    assert all(type(value) is np.ndarray for value in padded.values())
    assert padded["input_ids"].tolist() == [[0, 5, 2], [0, 2, 1]]
    assert padded["input_ids"].dtype == np.int64
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_pad_gives_lists_for_numbers_of_numpy(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer.pad([{"input_ids": [np.int64(0), np.int64(2)]}, {"input_ids": [0]}])["input_ids"]
    assert [[int(index) for index in row] for row in ids] == [[0, 2], [0, 1]]
    assert type(ids) is list
    one = tokenizer.pad({"input_ids": np.array([0, 2])}, padding="max_length", max_length=3)["input_ids"]
    assert one.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("ids", "dtype"), [([0, 2], np.float32), (np.array([0, 2]), np.float64)], ids=["lists", "arrays"]
)
def test_labels_beside_lists_keep_their_dtype(tokenizer: PreTrainedTokenizerBase, ids: Any, dtype: Any) -> None:
    padded = tokenizer.pad([{"input_ids": ids, "labels": np.float32(0.5)}], return_tensors="np")
    assert padded["labels"].dtype == dtype


@pytest.mark.parametrize(("package", "framework"), [("torch", "pt"), ("tensorflow", "tf"), ("jaxlib", "jax")])
def test_pad_asks_the_type_for_its_framework(
    tokenizer: PreTrainedTokenizerBase, package: str, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xlmr_core import backends

    members = {
        "__module__": f"{package}.inside",
        "shape": (2,),
        "tolist": lambda self: [0, 2],
        "__array__": lambda *_, **__: np.ones(2),
    }
    tensor = type("Tensor", (), members)()
    monkeypatch.setattr(backends, "to_tensor", lambda name, array: name)
    assert tokenizer.pad([{"input_ids": tensor}])["input_ids"] == framework
    assert tokenizer.pad([{"input_ids": tensor}], return_tensors="np")["input_ids"].tolist() == [[0, 2]]
    assert BatchEncoding({"labels": tensor}, tensor_type=framework)["labels"] is tensor
    assert BatchEncoding({"labels": tensor}, tensor_type="np")["labels"].tolist() == [1, 1]
