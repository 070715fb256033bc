"""A tokenizer's files: what is read (of every version), refused, and written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.core.tokenization_models import TEXTS, piece, small_model, with_pieces
from xlmr_core.errors import ModelNotFoundError, TokenizerError
from xlmr_core.tokenization import (
    AddedToken,
    AutoTokenizer,
    XLMRobertaTokenizer,
    XLMRobertaTokenizerFast,
    tokenizer_json_from_model,
)
from xlmr_core.tokenization.spm import SentencePieceModel

CLASSES = pytest.mark.parametrize("cls", [XLMRobertaTokenizer, XLMRobertaTokenizerFast], ids=["slow", "fast"])
MODEL, JSON, CONFIG = "sentencepiece.bpe.model", "tokenizer.json", "tokenizer_config.json"
MAP = "special_tokens_map.json"
MASK = 121
PROBES = [*TEXTS, "Paris  <mask> .", "<extra> and <mask>"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file, as our fast class writes it."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / MODEL).write_bytes(small_model())
    XLMRobertaTokenizerFast(folder / MODEL).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of ``saved`` to change."""
    return Path(shutil.copytree(saved, tmp_path / "folder"))


def _write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def _read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def _without_last_digits(content: dict[str, Any]) -> dict[str, Any]:
    """The JSON reader of the tokenizers library is off by one in the last digit of some scores."""
    vocabulary = [[token, round(score, 12)] for token, score in content["model"]["vocab"]]
    return {**content, "model": {**content["model"], "vocab": vocabulary}}


def _ids(tokenizer: Any) -> list[list[int]]:
    return tokenizer(PROBES)["input_ids"]  # type: ignore[no-any-return]


# -- writing -----------------------------------------------------------------------------------------------------------


def test_fast_writes_every_file(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {MODEL, JSON, CONFIG, "special_tokens_map.json"}
    assert (saved / MODEL).read_bytes() == small_model()
    assert json.loads(tokenizer_json_from_model(saved / MODEL)) == _read(saved, JSON)
    config = _read(saved, CONFIG)
    assert config["tokenizer_class"] == "XLMRobertaTokenizer"
    assert config["added_tokens_decoder"][str(MASK)]["lstrip"] is True
    assert _read(saved, "special_tokens_map.json")["mask_token"]["content"] == "<mask>"


@CLASSES
def test_round_trip(cls: Any, saved: Path, tmp_path: Path) -> None:
    tokenizer = cls.from_pretrained(saved, model_max_length=77, padding_side="left", model_input_names=["input_ids"])
    tokenizer.add_tokens(["<extra>", AddedToken("<two>", lstrip=True)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<q>"]})
    paths = tokenizer.save_pretrained(tmp_path / "new" / "folder")
    assert all(Path(path).is_file() for path in paths)
    again = cls.from_pretrained(tmp_path / "new" / "folder")
    assert _ids(again) == _ids(tokenizer)
    for name in (
        "model_max_length", "padding_side", "model_input_names", "added_tokens_decoder", "special_tokens_map",
        "all_special_ids",
    ):  # fmt: skip
        assert getattr(again, name) == getattr(tokenizer, name), name
    assert _read(tmp_path / "new" / "folder", "added_tokens.json") == {"<extra>": 122, "<two>": 123, "<q>": 124}
    assert not list((tmp_path / "new" / "folder").glob(".*"))


def test_classes_read_each_others_folders(saved: Path, tmp_path: Path) -> None:
    fast = XLMRobertaTokenizerFast.from_pretrained(saved)
    fast.add_tokens(["<extra>"])
    fast.save_pretrained(tmp_path / "fast")
    slow = XLMRobertaTokenizer.from_pretrained(tmp_path / "fast")
    slow.save_pretrained(tmp_path / "slow")
    for name in ("fast", "slow"):
        for cls in (XLMRobertaTokenizer, XLMRobertaTokenizerFast):
            assert cls.from_pretrained(tmp_path / name).convert_tokens_to_ids("<extra>") == 122
    assert not (tmp_path / "slow" / JSON).exists()


@CLASSES
def test_unknown_settings_survive(cls: Any, folder: Path, tmp_path: Path) -> None:
    kept = {"add_prefix_space": True, "backend": "tokenizers", "is_local": True, "some_future_setting": {"a": [1]}}
    _write(folder, CONFIG, _read(folder, CONFIG) | kept)
    cls.from_pretrained(folder).save_pretrained(tmp_path / "out")
    assert kept.items() <= _read(tmp_path / "out", CONFIG).items()


def test_settings_that_json_cannot_hold(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="JSON"):
        XLMRobertaTokenizerFast.from_pretrained(saved, thing=object()).save_pretrained(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_prefix_and_legacy_format(saved: Path, tmp_path: Path) -> None:
    fast = XLMRobertaTokenizerFast.from_pretrained(saved)
    fast.save_pretrained(tmp_path, filename_prefix="my")
    assert (tmp_path / f"my-{JSON}").is_file()
    fast.save_pretrained(tmp_path / "new", legacy_format=False)
    assert not (tmp_path / "new" / MODEL).exists()
    fast.save_pretrained(tmp_path / "old", legacy_format=True)
    assert not (tmp_path / "old" / JSON).exists()
    for cls in (XLMRobertaTokenizer, XLMRobertaTokenizerFast):
        (path,) = cls.from_pretrained(saved).save_vocabulary(tmp_path, "x")
        assert Path(path).read_bytes() == small_model()


def test_lengths_of_a_call_are_not_saved(saved: Path, tmp_path: Path) -> None:
    fast = XLMRobertaTokenizerFast.from_pretrained(saved)
    fast(TEXTS, padding=True, truncation=True, max_length=5)
    fast.save_pretrained(tmp_path)
    assert _without_last_digits(_read(tmp_path, JSON)) == _without_last_digits(_read(saved, JSON))


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@CLASSES
def test_nothing_of_an_earlier_save_stays(cls: Any, saved: Path, tmp_path: Path) -> None:
    before = XLMRobertaTokenizerFast.from_pretrained(saved)
    before.add_tokens(["<extra>"])
    before.save_pretrained(tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text("{}")
    cls.from_pretrained(saved).save_pretrained(tmp_path / "out")
    cls.from_pretrained(saved).save_pretrained(tmp_path / "fresh")
    assert _contents(tmp_path / "out") == _contents(tmp_path / "fresh") | {"config.json": b"{}"}
    for use_fast in (True, False):
        assert len(AutoTokenizer.from_pretrained(tmp_path / "out", use_fast=use_fast)) == MASK + 1


def test_a_json_without_its_model_replaces_both(saved: Path, folder: Path) -> None:
    XLMRobertaTokenizerFast.from_pretrained(saved).save_pretrained(folder, filename_prefix="my")
    XLMRobertaTokenizerFast(tokenizer_file=saved / JSON).save_pretrained(folder)
    assert not (folder / MODEL).exists()
    assert (folder / f"my-{MODEL}").is_file()
    XLMRobertaTokenizerFast(tokenizer_file=saved / JSON).save_pretrained(folder, filename_prefix="my")
    assert not (folder / f"my-{MODEL}").exists()


@CLASSES
@pytest.mark.parametrize("fails_at", [0, 1])
def test_a_save_that_fails_leaves_the_folder_as_it_was(
    cls: Any, fails_at: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _contents(folder)
    tokenizer = cls.from_pretrained(folder, model_max_length=99)
    tokenizer.add_tokens(["<extra>"])
    replace, calls = os.replace, iter(range(100))

    def failing(*args: Any) -> None:
        if next(calls) == fails_at:
            raise OSError("the disk is full")
        replace(*args)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="full"):
        tokenizer.save_pretrained(folder)
    assert _contents(folder) == before


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "removed",
    [(MODEL,), (JSON,), (JSON, CONFIG), (MODEL, CONFIG, "special_tokens_map.json")],
)
def test_one_vocabulary_file_is_enough(folder: Path, saved: Path, removed: tuple[str, ...]) -> None:
    for name in removed:
        (folder / name).unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer) is XLMRobertaTokenizerFast
    assert _ids(tokenizer) == _ids(XLMRobertaTokenizerFast.from_pretrained(saved))
    slow = AutoTokenizer.from_pretrained(folder, use_fast=False)
    assert type(slow) is XLMRobertaTokenizer
    assert _ids(slow) == _ids(XLMRobertaTokenizer.from_pretrained(saved))
    if MODEL in removed:
        assert not tokenizer.can_save_slow_tokenizer
        with pytest.raises(TokenizerError, match="save_pretrained"):
            tokenizer.save_vocabulary(folder)
        with pytest.raises(TokenizerError, match="legacy_format"):
            tokenizer.save_pretrained(folder, legacy_format=True)


@CLASSES
@pytest.mark.parametrize("where", ["a file", "a folder"])
@pytest.mark.parametrize("settings", [{}, {CONFIG: {"mask_token": "<mask>"}}, {MAP: {"mask_token": "<mask>"}}])
def test_the_model_alone(cls: Any, where: str, settings: dict[str, Any], saved: Path, tmp_path: Path) -> None:
    """By from_pretrained <mask> takes all the spaces before it; the fast class's constructor leaves one, as it did."""
    shutil.copy(saved / MODEL, tmp_path)
    for name, content in settings.items():
        _write(tmp_path, name, content)
    tokenizer = cls.from_pretrained(tmp_path / MODEL if where == "a file" else tmp_path)
    made = cls(vocab_file=saved / MODEL)
    assert _ids(tokenizer) == _ids(XLMRobertaTokenizer(saved / MODEL))
    assert tokenizer.added_tokens_decoder[MASK].normalized is False
    assert made.added_tokens_decoder[MASK].normalized is cls.is_fast
    assert (_ids(made) != _ids(tokenizer)) is cls.is_fast


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("name", [CONFIG, MAP])
def test_flags_of_a_file_count(name: str, normalized: bool, saved: Path, tmp_path: Path) -> None:
    shutil.copy(saved / MODEL, tmp_path)
    mask = {"content": "<mask>", "single_word": False, "lstrip": True, "rstrip": False, "normalized": normalized}
    _write(tmp_path, name, {"mask_token": mask})
    assert XLMRobertaTokenizerFast.from_pretrained(tmp_path).added_tokens_decoder[MASK].normalized is normalized


@CLASSES
@pytest.mark.parametrize("removed", [(), (JSON, CONFIG)], ids=["all files", "no config"])
def test_a_mask_token_of_another_name_takes_the_spaces_before_it(
    cls: Any, removed: tuple[str, ...], folder: Path
) -> None:
    for name in removed:
        (folder / name).unlink()
    for tokenizer in (cls(folder / MODEL, mask_token="[MASK]"), cls.from_pretrained(folder, mask_token="[MASK]")):
        assert tokenizer.added_tokens_decoder[tokenizer.mask_token_id].lstrip
        assert [token.strip() for token in tokenizer.tokenize("a [MASK] is")] == [
            *tokenizer.tokenize("a"),
            "[MASK]",
            *tokenizer.tokenize("is"),
        ]


NAMED = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"]


@CLASSES
@pytest.mark.parametrize("other", [XLMRobertaTokenizer, XLMRobertaTokenizerFast])
def test_a_token_set_to_none_stays_none(cls: Any, other: Any, saved: Path, tmp_path: Path) -> None:
    tokenizer = cls.from_pretrained(saved)
    for name in ("mask", "pad", "unk"):
        setattr(tokenizer, f"{name}_token", None)
    tokenizer.save_pretrained(tmp_path)
    again = other.from_pretrained(tmp_path)
    assert [name for name in NAMED if getattr(again, f"{name}_token") is None] == ["unk", "pad", "mask"]
    assert again.pad_token_id is None
    assert again.added_tokens_decoder.keys() == tokenizer.added_tokens_decoder.keys()


@CLASSES
@pytest.mark.parametrize("kept", [(MODEL,), (MODEL, JSON)])
def test_null_in_a_config_is_no_token(cls: Any, kept: tuple[str, ...], saved: Path, tmp_path: Path) -> None:
    for name in kept:
        shutil.copy(saved / name, tmp_path)
    _write(tmp_path, CONFIG, {"mask_token": None})
    tokenizer = cls.from_pretrained(tmp_path)
    assert (tokenizer.mask_token, tokenizer.pad_token) == (None, "<pad>")


# A config's pad_token and that of the map, and which one transformers 4.57.6 takes where the config lists no added
# tokens (version 3), and where it does.
ABSENT = object()
PAD_TOKENS = [
    ("</s>", "<unk>", "<unk>", "</s>"),
    (None, "<unk>", "<unk>", None),
    (ABSENT, "<unk>", "<unk>", "<pad>"),
    ("</s>", ABSENT, "</s>", "</s>"),
]


@CLASSES
@pytest.mark.parametrize("lists_added_tokens", [False, True])
@pytest.mark.parametrize(("in_config", "in_map", "of_version_3", "of_version_4"), PAD_TOKENS)
def test_config_and_map_disagree(
    cls: Any, lists_added_tokens: bool, in_config: Any, in_map: Any, of_version_3: Any, of_version_4: Any, folder: Path
) -> None:
    config = _read(folder, CONFIG)
    del config["pad_token"]
    if not lists_added_tokens:
        del config["added_tokens_decoder"]
    _write(folder, CONFIG, config if in_config is ABSENT else {**config, "pad_token": in_config})
    _write(folder, MAP, {} if in_map is ABSENT else {"pad_token": in_map})
    expected = of_version_4 if lists_added_tokens else of_version_3
    assert cls.from_pretrained(folder).pad_token == expected
    assert cls.from_pretrained(folder, pad_token="<s>").pad_token == "<s>"


@CLASSES
def test_lists_of_config_and_map_are_one(cls: Any, folder: Path) -> None:
    (folder / JSON).unlink()
    _write(folder, CONFIG, {"additional_special_tokens": ["<c>"]})
    _write(folder, MAP, {"additional_special_tokens": ["<m>", "<c>"]})
    assert cls.from_pretrained(folder).additional_special_tokens == ["<c>", "<m>"]
    assert cls.from_pretrained(folder, additional_special_tokens=["<o>"]).additional_special_tokens == ["<o>"]


@CLASSES
def test_a_chat_template_is_kept(cls: Any, saved: Path, tmp_path: Path) -> None:
    tokenizer = cls.from_pretrained(saved)
    assert tokenizer.chat_template is None
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path)
    assert again.chat_template == "{{ messages }}"
    again.chat_template = None
    again.save_pretrained(tmp_path)
    assert cls.from_pretrained(tmp_path).chat_template is None


def test_json_file_and_object(saved: Path) -> None:
    expected = _ids(XLMRobertaTokenizerFast(tokenizer_file=saved / JSON))
    assert _ids(XLMRobertaTokenizerFast.from_pretrained(saved / JSON)) == expected
    given = XLMRobertaTokenizerFast(tokenizer_file=saved / JSON).backend_tokenizer
    made = XLMRobertaTokenizerFast(tokenizer_object=given)
    made.add_tokens(["<mine>"])
    assert given.token_to_id("<mine>") is None
    assert _ids(made) == expected


@CLASSES
def test_files_of_version_3(cls: Any, folder: Path) -> None:
    """No added_tokens_decoder, special tokens as typed dicts, added_tokens.json."""
    (folder / JSON).unlink()
    mask = {"content": "<mask>", "single_word": False, "lstrip": True, "rstrip": False, "normalized": True}
    _write(
        folder,
        CONFIG,
        {"model_max_length": 512, "mask_token": {**mask, "__type": "AddedToken"}, "special_tokens_map_file": None},
    )
    _write(folder, "special_tokens_map.json", {"mask_token": mask, "additional_special_tokens": ["<q>"]})
    _write(folder, "added_tokens.json", {"<q>": 123, "<extra>": 122, "<mask>": MASK})
    tokenizer = cls.from_pretrained(folder)
    assert tokenizer.model_max_length == 512
    assert tokenizer.get_added_vocab().items() >= {"<extra>": 122, "<q>": 123}.items()
    assert tokenizer.additional_special_tokens == ["<q>"]
    assert tokenizer.tokenize("Paris <mask>")[-1].strip() == "<mask>"
    assert tokenizer.added_tokens_decoder[MASK].lstrip


@CLASSES
def test_files_of_version_5(cls: Any, folder: Path) -> None:
    """No added_tokens_decoder, a generic class name, extra_special_tokens as a list."""
    content = _read(folder, JSON)
    content["added_tokens"].append({**content["added_tokens"][0], "id": 122, "content": "<extra>"})
    _write(folder, JSON, content)
    _write(
        folder,
        CONFIG,
        {"backend": "tokenizers", "tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<extra>"]},
    )
    tokenizer = cls.from_pretrained(folder)
    assert tokenizer.additional_special_tokens == ["<extra>"]
    assert tokenizer.additional_special_tokens_ids == [122]
    assert tokenizer("<extra>")["input_ids"] == [0, 122, 2]


@CLASSES
def test_named_extra_tokens(cls: Any, folder: Path, tmp_path: Path) -> None:
    _write(folder, CONFIG, {"extra_special_tokens": {"image_token": "<image>"}})
    tokenizer = cls.from_pretrained(folder)
    assert (tokenizer.image_token, tokenizer.image_token_id) == ("<image>", 122)
    assert tokenizer.extra_special_tokens == {"image_token": "<image>"}
    tokenizer.save_pretrained(tmp_path / "out")
    assert _read(tmp_path / "out", CONFIG)["extra_special_tokens"] == {"image_token": "<image>"}
    assert cls.from_pretrained(tmp_path / "out").image_token_id == 122


def test_files_saved_in_the_middle_of_use(folder: Path) -> None:
    content = _read(folder, JSON)
    content["truncation"] = {"direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 40}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 1, "pad_type_id": 0,
        "pad_token": "<pad>",
    }  # fmt: skip
    _write(folder, JSON, content)
    (folder / CONFIG).unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert 4 < len(tokenizer(TEXTS[0])["input_ids"]) != 40
    assert (tokenizer.padding_side, tokenizer.truncation_side) == ("left", "left")


def test_overrides_win(saved: Path) -> None:
    for use_fast in (True, False):
        tokenizer = AutoTokenizer.from_pretrained(
            saved, use_fast=use_fast, model_max_length=9, pad_token="<mine>", trust_remote_code=True
        )
        assert (tokenizer.model_max_length, tokenizer.pad_token, tokenizer.pad_token_id) == (9, "<mine>", 122)


def test_from_slow_ignores_the_json(folder: Path) -> None:
    _write(folder, JSON, {})
    assert _ids(XLMRobertaTokenizerFast.from_pretrained(folder, from_slow=True)) == _ids(
        XLMRobertaTokenizerFast(folder / MODEL)
    )


def test_auto_has_no_instances() -> None:
    with pytest.raises(TypeError, match="from_pretrained"):
        AutoTokenizer()


# -- refusing ----------------------------------------------------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="found nothing"):
        AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ModelNotFoundError):
        AutoTokenizer.from_pretrained(tmp_path / "no" / "such" / "folder")
    for make in (XLMRobertaTokenizer, XLMRobertaTokenizerFast, tokenizer_json_from_model):
        with pytest.raises(TokenizerError, match="cannot be read"):
            make(tmp_path / MODEL)
    with pytest.raises(TokenizerError, match="no file"):
        XLMRobertaTokenizerFast(tokenizer_file=tmp_path / JSON)
    with pytest.raises(TokenizerError, match="vocab_file"):
        XLMRobertaTokenizerFast()


@CLASSES
@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\x00" * 100, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"{}"]
)
def test_garbage_model(cls: Any, content: bytes, tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(TokenizerError, match="truncated or not"):
        cls(tmp_path / MODEL)


@CLASSES
@pytest.mark.parametrize("share", [0.0005, 0.004, 0.01, 0.5, 0.9, 0.9999])
def test_truncated_model(cls: Any, share: float, tmp_path: Path) -> None:
    model = small_model()
    (tmp_path / MODEL).write_bytes(model[: int(len(model) * share)])
    with pytest.raises(TokenizerError):
        cls(tmp_path / MODEL)


@CLASSES
def test_model_cut_between_two_pieces(cls: Any, tmp_path: Path) -> None:
    """Sentencepiece itself reads such a file, without any normalization."""
    (tmp_path / MODEL).write_bytes(
        b"".join(piece(*args) for args in [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("▁a", -1)])
    )
    with pytest.raises(TokenizerError, match="truncated"):
        cls(tmp_path / MODEL)


@CLASSES
@pytest.mark.parametrize(("first", "second"), [("<unk>", "<oov>"), ("</s>", "<x>")])
def test_other_first_pieces(cls: Any, first: str, second: str, tmp_path: Path) -> None:
    kind = 2 if first == "<unk>" else 3
    model = small_model().replace(piece(first, 0, kind), piece(second, 0, kind), 1)
    assert model != small_model()
    (tmp_path / MODEL).write_bytes(model)
    with pytest.raises(TokenizerError, match="not an XLM-R vocabulary"):
        cls(tmp_path / MODEL)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_json(share: float, folder: Path) -> None:
    text = (folder / JSON).read_bytes()
    (folder / JSON).write_bytes(text[: int(len(text) * share)])
    with pytest.raises(TokenizerError, match="damaged"):
        AutoTokenizer.from_pretrained(folder)


def test_damaged_normalization_table(folder: Path) -> None:
    content = _read(folder, JSON)
    table = content["normalizer"]["normalizers"][0]
    table["precompiled_charsmap"] = table["precompiled_charsmap"][:4000]
    _write(folder, JSON, content)
    with pytest.raises(TokenizerError, match="damaged"):
        AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", [CONFIG, "special_tokens_map.json", "added_tokens.json"])
@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_damaged_settings(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content)
    with pytest.raises(TokenizerError, match=name):
        AutoTokenizer.from_pretrained(folder)


def test_json_of_another_tokenizer(folder: Path) -> None:
    import tokenizers

    other = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    other.save(str(folder / JSON))
    with pytest.raises(TokenizerError, match="received WordPiece"):
        AutoTokenizer.from_pretrained(folder)
    unigram = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0)]
    tokenizers.Tokenizer(tokenizers.models.Unigram(unigram, unk_id=2, byte_fallback=False)).save(str(folder / JSON))
    with pytest.raises(TokenizerError, match="ids 0 to 3"):
        AutoTokenizer.from_pretrained(folder)


def test_json_with_another_template(folder: Path) -> None:
    content = _read(folder, JSON)
    content["post_processor"] = None
    _write(folder, JSON, content)
    with pytest.raises(TokenizerError, match="around a pair"):
        AutoTokenizer.from_pretrained(folder)


def test_json_and_model_disagree(folder: Path) -> None:
    (folder / MODEL).write_bytes(with_pieces(small_model(), 150))
    with pytest.raises(TokenizerError, match="different ones"):
        AutoTokenizer.from_pretrained(folder)
    with pytest.raises(TokenizerError, match="different vocabularies"):
        AutoTokenizer.from_pretrained(folder, use_fast=False)


def test_json_and_model_of_one_size_disagree(folder: Path) -> None:
    text = SentencePieceModel.from_bytes(small_model()).pieces[50]
    content = _read(folder, JSON)
    content["model"]["vocab"][51][0] = text + "zz"
    _write(folder, JSON, content)
    with pytest.raises(TokenizerError, match="id 51"):
        AutoTokenizer.from_pretrained(folder)


@CLASSES
def test_settings_of_another_vocabulary(cls: Any, folder: Path) -> None:
    (folder / JSON).unlink()
    config = _read(folder, CONFIG)
    config["added_tokens_decoder"]["90"] = config["added_tokens_decoder"].pop(str(MASK))
    _write(folder, CONFIG, config)
    with pytest.raises(TokenizerError, match="different vocabularies"):
        cls.from_pretrained(folder)


@CLASSES
def test_model_file_of_another_class(cls: Any, folder: Path) -> None:
    """The file alone does not say how its pieces are numbered."""
    (folder / JSON).unlink()
    _write(folder, CONFIG, {"tokenizer_class": "CamembertTokenizer"})
    with pytest.raises(TokenizerError, match="CamembertTokenizer"):
        cls.from_pretrained(folder)


def test_saving_into_a_file(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenizerError, match="a folder"):
        XLMRobertaTokenizerFast.from_pretrained(saved).save_pretrained(tmp_path / "file")


def test_reader_agrees_with_sentencepiece() -> None:
    import sentencepiece

    model = with_pieces(small_model(), 1000)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    read = SentencePieceModel.from_bytes(model)
    assert read.pieces == [processor.id_to_piece(index) for index in range(len(processor))]
    assert read.scores == [processor.get_score(index) for index in range(len(processor))]


def test_reader_takes_long_pieces_and_other_field_orders() -> None:
    long = "x" * 300
    model = small_model()
    reordered = b"\x15\x00\x00\x80\xbf" + b"\x0a\x03new" + b"\x18\x01"
    end = len(with_pieces(model, 120)) - len(model)
    assert end == 0
    first = model.index(piece("<unk>", 0, 2))
    tail = b"".join(piece(*args) for args in [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)])
    assert model[first:].startswith(tail)
    added = piece(long, -2.5) + b"\x0a" + bytes([len(reordered)]) + reordered
    read = SentencePieceModel.from_bytes(tail + added + model[len(tail) :])
    assert read.pieces[3:5] == [long, "new"]
    assert read.scores[3:5] == [-2.5, -1.0]
