"""Words of scripts with and without spaces, and the windows that long texts are read in."""

from __future__ import annotations

import pytest

from xlmr_core.tasks.texts import windows
from xlmr_core.tasks.words import blank_chars, word_numbers


def words(text: str) -> list[str]:
    """The words of a text; white space after one is left out."""
    numbers = word_numbers(text)
    assert len(numbers) == len(text)
    found: dict[int, str] = {}
    for char, number in zip(text, numbers.tolist(), strict=True):
        found[number] = found.get(number, "") + char
    assert list(found) == sorted(found)
    return [word.strip().strip("\u200b\ufeff") for number, word in found.items() if number >= 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("  ", ""),
        ("Ada", "Ada"),
        (" two  words\n", "two|words"),
        ("a\tb\xa0c\u3000d\u200be\u2028f", "a|b|c|d|e|f"),
        ("Hello, world!", "Hello|,|world|!"),
        ("Saint-Denis, U.S.A. and a.m.", "Saint-Denis|,|U.S.A|.|and|a.m|."),
        ("-a b- - c.", "-|a|b|-|-|c|."),
        ("1,5 km, 3.14 and 1.000,00", "1,5|km|,|3.14|and|1.000,00"),
        ("one,two", "one|,|two"),
        ("l'Allemagne don’t", "l|'|Allemagne|don|’|t"),
        ("snake_case (x)", "snake_case|(|x|)"),
        ("Cafe\u0301 cre\u0300me", "Cafe\u0301|cre\u0300me"),
        ("北京大学，2024年。", "北|京|大|学|，|2024|年|。"),
        ("iPhone手机", "iPhone|手|机"),
        ("東京タワーへ行った人々", "東|京|タワー|へ|行っ|た|人々"),
        ("ｶﾞｲﾄﾞ", "ｶﾞｲﾄﾞ"),
        ("ไปเชียงใหม่", "ไป|เชี|ย|ง|ให|ม่"),
        ("ลไม้ ๑๒", "ล|ไม้|๑๒"),
        ("ភ្នំពេញ", "ភ្នំ|ពេ|ញ"),
        ("မြန်မာ", "မြ|န်|မာ"),
        ("राम ने किताब खरीदी।", "राम|ने|किताब|खरीदी|।"),
        ("क्षत्रिय ज्ञान", "क्षत्रिय|ज्ञान"),
        ("زار أحمد، القاهرة؟", "زار|أحمد|،|القاهرة|؟"),
        ("שלום עולם", "שלום|עולם"),
        ("김철수가 부산에서.", "김철수가|부산에서|."),
        ("ok😀🎉 👩🏾\u200d💻!", "ok|😀|🎉|👩🏾\u200d💻|!"),
        ("x\u0301 \u0301y", "x\u0301|\u0301y"),
        ("\ud800a", "\ud800a"),
        ("𠀀𠀁 𝔘𝔫𝔦", "𠀀|𠀁|𝔘𝔫𝔦"),
    ],
)
def test_words(text, expected):
    assert words(text) == [word for word in expected.split("|") if word]


def test_white_space_is_of_the_word_before_it():
    assert word_numbers(" a  b").tolist() == [-1, 0, 0, 0, 1]
    assert blank_chars(" a\u200b\n").tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("length", "room", "shared", "expected"),
    [
        (3, 4, 2, [(0, 3)]),
        (4, 4, 2, [(0, 4)]),
        (5, 4, 2, [(0, 4), (2, 5)]),
        (6, 4, 2, [(0, 4), (2, 6)]),
        (7, 4, 2, [(0, 4), (2, 6), (4, 7)]),
        (9, 4, 0, [(0, 4), (4, 8), (8, 9)]),
        (6, 4, 3, [(0, 4), (1, 5), (2, 6)]),
        (0, 4, 2, [(0, 0)]),
    ],
)
def test_windows(length, room, shared, expected):
    assert windows(length, room, shared) == expected
    assert windows(length, room, shared, "left") == [(length - end, length - start) for start, end in expected]
