"""sentencepiece's numbers are ids, because it gets the pieces in the order of ids."""

from __future__ import annotations

from pathlib import Path

import sentencepiece

from tests.core.tokenization_models import TEXTS, piece, small_model, with_pieces
from xlmr_core.tokenization import XLMRobertaTokenizer
from xlmr_core.tokenization.spm import in_id_order, own_name, scan_model


def test_a_model_in_id_order_gives_ids() -> None:
    """Wherever the first pieces stand, however long their fields are, and with a ``<pad>`` of the file's own."""
    unknown_field = b"\x7a\xc8\x01" + bytes(200)  # makes a piece longer than one byte of length can say
    heads = [piece("<unk>", 0, 2), piece("<s>", 0, 3), piece("</s>", 0, 3)]
    long = heads[1][2:] + unknown_field
    long = b"\x0a" + bytes([len(long) & 127 | 128, len(long) >> 7]) + long
    rest = with_pieces(small_model(), 300).removeprefix(b"".join(heads)) + piece("<pad>", 0, 3)
    # The model's other fields come after all pieces; here two of the first stand behind one of them.
    other = b"\x7a\x02hi"
    for model in (b"".join(heads) + rest, heads[0] + other + long + other + heads[2] + rest):
        plain = sentencepiece.SentencePieceProcessor(model_proto=model)
        found = sentencepiece.SentencePieceProcessor(model_proto=in_id_order(model, scan_model(model, "here")[0]))
        assert [found.piece_to_id(token) for token in ("<s>", "</s>", "<unk>")] == [0, 2, 3]
        assert [found.id_to_piece(index) for index in range(4, len(found))] == [
            own_name(plain.id_to_piece(number)) for number in range(3, len(plain))
        ]
        numbers = plain.encode([*TEXTS, "a 狼 <pad> <s>"])
        assert any(0 in row for row in numbers)
        assert found.encode([*TEXTS, "a 狼 <pad> <s>"]) == [[n + 1 if n else 3 for n in row] for row in numbers]


def test_sp_model_is_the_file_s(tmp_path: Path) -> None:
    path = tmp_path / "m.model"
    path.write_bytes(small_model())
    tokenizer = XLMRobertaTokenizer(path)
    numbers = tokenizer.sp_model.encode(TEXTS[0])
    assert [number + tokenizer.fairseq_offset for number in numbers] == tokenizer.encode(
        TEXTS[0], add_special_tokens=False
    )
    assert len(tokenizer.sp_model) == 120
    (saved,) = tokenizer.save_vocabulary(tmp_path)
    assert Path(saved).read_bytes() == small_model()
