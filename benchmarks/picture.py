"""Draw docs/speed.svg, the picture of the README, from benchmarks/results: ``python -m benchmarks.picture``.

A bar a contestant, a group a framework: how many times as fast as the original class it computes hidden states of 32
texts of natural length. A test holds the picture to the results.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from benchmarks import machine
from benchmarks.page import latest
from benchmarks.targets import NATURAL, Reports, entry

PICTURE = machine.ROOT / "docs" / "speed.svg"

# Group -> the question that measured it, and its contestants: the name in the results, the name in the picture.
GROUPS = {
    "PyTorch": (
        "encoder",
        (
            ("transformers", "transformers 5"),
            ("ONNX Runtime", "ONNX Runtime"),
            ("CTranslate2", "CTranslate2"),
            ("xlmr", "xlmr"),
            ("xlmr compiled", "xlmr, compiled"),
            ("ONNX Runtime int8", "ONNX Runtime int8"),
            ("CTranslate2 int8", "CTranslate2 int8"),
            ("xlmr compiled bfloat16", "xlmr, compiled, bfloat16"),
            ("xlmr compiled int8", "xlmr, compiled, int8"),
        ),
    ),
    "Keras 3 on TensorFlow": (
        "keras_encoder",
        (("original", "transformers 4"), ("KerasHub", "KerasHub"), ("xlmr_tf", "xlmr")),
    ),
    "Flax on JAX": (
        "flax_encoder",
        (
            ("transformers 4 flax", "transformers 4"),
            ("xlmr flax", "xlmr"),
            ("xlmr flax bfloat16", "xlmr, bfloat16"),
        ),
    ),
}
TITLE = "Texts of natural length on two CPU cores: times as fast as the original class"
# Colours that can be told apart in grey and by those who see no red; the background makes them good on a dark page.
OURS, THEIRS, INK, PAPER = "#0b6e99", "#b5bcc4", "#1f2328", "#ffffff"
WIDTH, LEFT, RIGHT, ROW, HEAD = 760, 210, 60, 22, 30


def picture(reports: Reports) -> str:
    """The picture as SVG."""
    longest = max(times for _, rows in bars(reports) for _, times in rows)
    scale = (WIDTH - LEFT - RIGHT) / longest
    parts, y = [text(16, 28, TITLE, weight="bold", size=15)], 44
    for group, rows in bars(reports):
        y += HEAD
        parts.append(text(16, y - 8, group, weight="bold"))
        for name, times in rows:
            colour = OURS if name.startswith("xlmr") else THEIRS
            parts.append(text(LEFT - 8, y + 15, name, anchor="end"))
            parts.append(f'<rect x="{LEFT}" y="{y + 3}" width="{times * scale:.1f}" height="16" fill="{colour}"/>')
            parts.append(text(round(LEFT + times * scale) + 6, y + 15, f"{times:.1f}"))
            y += ROW
    height = y + 16
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'font-family="system-ui, sans-serif">',
            f"<title>{escape(TITLE)}</title>",
            f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{PAPER}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def bars(reports: Reports) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """Each group with its contestants and their medians."""
    for group, (question, contestants) in GROUPS.items():
        yield group, [(name, median(reports, question, kept)) for kept, name in contestants]


def median(reports: Reports, question: str, contestant: str) -> float:
    """How many times as fast as the baseline, the median over the rounds."""
    return float(entry(reports, question, NATURAL, contestant)["ratio"]["seconds"][1])


def text(x: int, y: int, content: str, *, anchor: str = "start", weight: str = "normal", size: int = 13) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}" fill="{INK}">'
        f"{escape(content)}</text>"
    )


def main() -> None:
    PICTURE.write_text(picture(latest()), encoding="utf-8")


if __name__ == "__main__":
    main()
