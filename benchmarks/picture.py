"""Draw docs/speed.svg, the picture of the README, docs/generation.svg and docs/lengths.svg from benchmarks/results:
``python -m benchmarks.picture``.

A bar a contestant, a group a framework: how many times as fast as the original class it computes hidden states of 32
texts of natural length. A line a contestant: what a token costs, by how many were generated before it; and how many
times as many tokens of texts it reads in a second as the original class, by their length. A test holds the pictures to
the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from benchmarks import long_texts, machine
from benchmarks.page import latest
from benchmarks.targets import CURVE, NATURAL, Reports, entry, pace_of

PICTURE = machine.ROOT / "docs" / "speed.svg"
CURVES = machine.ROOT / "docs" / "generation.svg"
LENGTHS = machine.ROOT / "docs" / "lengths.svg"

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
# The lines: the question, and its contestants as above.
LINES = (
    (
        "generation",
        (
            ("transformers", "transformers 5"),
            ("transformers bfloat16", "transformers 5, bfloat16"),
            ("xlmr", "xlmr"),
            ("xlmr bfloat16", "xlmr, bfloat16"),
            ("xlmr bfloat16, int8 head", "xlmr, bfloat16, int8 head"),
        ),
    ),
    ("keras_generation", (("xlmr_tf", "xlmr, Keras"),)),
    ("flax_generation", (("xlmr flax", "xlmr, Flax"),)),
)
TITLE = "Texts of natural length on two CPU cores: times as fast as the original class"
# Colours that can be told apart in grey and by those who see no red; the background makes them good on a dark page.
OURS, THEIRS, INK, PAPER = "#0b6e99", "#b5bcc4", "#1f2328", "#ffffff"
WIDTH, LEFT, RIGHT, ROW, HEAD = 760, 210, 60, 22, 30
LENGTHS_TITLE = "Texts of a length at base's shape on two CPU cores: times as fast as transformers 5"
CURVES_TITLE = "One text on two CPU cores: milliseconds a token, by the number of new tokens"


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
    return svg(TITLE, y + 16, parts)


def svg(title: str, height: int, parts: list[str]) -> str:
    """A picture of these parts, with its title for those who do not see it."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'font-family="system-ui, sans-serif">',
            f"<title>{escape(title)}</title>",
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


# ---- The curve


def curves(reports: Reports) -> str | None:
    """The picture of what a token costs, as SVG; none before it was measured."""
    found = lines(reports)
    marks = sorted({mark for points in found.values() for mark in points})
    return plot(CURVES_TITLE, found, {mark: str(mark) for mark in marks}, "{:.0f}") if found else None


def plot(
    title: str, found: Mapping[str, Mapping[int, float]], marks: Mapping[int, str], shown: str, apart: int | None = None
) -> str:
    """Lines by name, as SVG.

    Args:
        title: of the picture.
        found: values by place on the axis, by the line's name.
        marks: the places with what stands below them.
        shown: how a value is written.
        apart: a place whose values are points, because it does not follow the one before.
    """
    top, bottom, left, right = 48, 300, 56, 540
    highest = max(value for points in found.values() for value in points.values())
    scale_x, scale_y = (right - left) / max(1, *marks), (bottom - top) / highest
    parts = [text(16, 28, title, weight="bold", size=15)]
    for value in (0.0, highest / 2, highest):
        y = round(bottom - value * scale_y)
        parts.append(f'<path d="M{left} {y}H{right}" stroke="{THEIRS}" stroke-width="0.5"/>')
        parts.append(text(left - 8, y + 4, shown.format(value), anchor="end"))
    parts += [text(round(left + x * scale_x), bottom + 20, mark, anchor="middle") for x, mark in marks.items()]
    ends = {name: bottom - points[max(points)] * scale_y for name, points in found.items()}
    labels = spaced(ends)
    for name, points in found.items():
        colour = OURS if name.startswith("xlmr") else THEIRS
        places = {x: (round(left + x * scale_x, 1), round(bottom - value * scale_y, 1)) for x, value in points.items()}
        if apart in places:
            x, y = places.pop(apart)
            parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>')
        path = " ".join(f"{x},{y}" for x, y in places.values())
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(text(right + 12, labels[name] + 4, name))
    return svg(title, bottom + 40, parts)


def lengths(reports: Reports) -> str | None:
    """The picture of texts of all lengths, as SVG; none before they were measured."""
    asked = (*long_texts.SHAPES["base"].lengths, long_texts.MIXED)
    names = {long_texts.name_of("base", length): place for place, length in enumerate(asked)}
    found: dict[str, dict[int, float]] = {}
    for case in reports.get("long_texts", {}).get("cases", []):
        for name, measured in case["contestants"].items():
            if case["name"] in names:
                found.setdefault(name, {})[names[case["name"]]] = measured["ratio"]["tokens a second"][1]
    marks = {place: str(asked[place]) for points in found.values() for place in points}
    apart = asked.index(long_texts.MIXED)
    return plot(LENGTHS_TITLE, found, dict(sorted(marks.items())), "{:.1f}", apart) if found else None


def lines(reports: Reports) -> dict[str, dict[int, float]]:
    """By the name in the picture, the number of tokens and the median cost; of what was measured."""
    return {
        name: {pace_of(key): middle for key, (_, middle, _) in measured["quartiles"].items()}
        for question, contestants in LINES
        for case in reports.get(question, {}).get("cases", [])
        if case["name"] == CURVE
        for kept, name in contestants
        if (measured := case["contestants"].get(kept))
    }


def spaced(ends: dict[str, float], apart: int = 16) -> dict[str, int]:
    """Where names stand beside the ends of their lines: none on another."""
    found: dict[str, int] = {}
    lowest = 0
    for name, y in sorted(ends.items(), key=lambda end: end[1]):
        lowest = found[name] = max(round(y), lowest + apart)
    return found


def main() -> None:
    reports = latest()
    PICTURE.write_text(picture(reports), encoding="utf-8")
    drawn = curves(reports)
    if drawn is not None:
        CURVES.write_text(drawn, encoding="utf-8")
    drawn = lengths(reports)
    if drawn is not None:
        LENGTHS.write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
