"""The page of the server in a real browser: each view renders and is right, by mouse, by keys, in the dark, on a small
screen and from right to left; `nox -s browser` makes the environment and needs a Chromium.

With ``XLMR_PICTURES=docs/pictures`` it takes the pictures that the documents show.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.serving import serving

REASON = "the client of a browser is in the environment of `nox -s browser`"
sync_api = pytest.importorskip("playwright.sync_api", reason=REASON)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium here; install one, such as Debian's chromium", allow_module_level=True)

MODELS = {
    "names": "token_classification",
    "answers": "question_answering",
    "ranks": "cross_encoder",
    "entails": "zero_shot_entail2",
    "choices": "multiple_choice",
    "writes": "text_generation",
}
# Of each view what its answer has: a selector, and how many it finds at least.
VIEWS = {
    "fill-mask": (".bars li", 5),
    "token-classification": ("#answer > *", 1),
    "question-answering": (".text mark", 1),
    "sentence-similarity": ("table.heat td.strong", 3),
    "rerank": (".bars li", 3),
    "text-classification": (".bars li", 1),
    "zero-shot-classification": (".bars li", 3),
    "multiple-choice": (".bars li", 1),
    "text-generation": (".text", 1),
    "tokens": ("tbody tr", 10),
    "attention": ("table.overview button", 8),
}
ARABIC = "السلام <mask> يا صديقي"


@pytest.fixture(scope="module")
def address(shared):
    """Of a server with a model for each view."""
    folders = [f"{name}={shared / 'fixtures' / 'tasks' / folder}" for name, folder in MODELS.items()]
    models = ["blanks=xlmr-mini", "vectors=xlmr-mini", *folders]
    tasks = ("--task", "vectors=sentence-embedding", "--task", "entails=zero-shot-classification")
    with serving(*models, *tasks, "--backend", "torch", "--no-progress", seconds=60) as url:
        yield url.removeprefix("http://")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def shown(browser, address, request):
    """Opens the page as a browser with these settings would; whatever goes wrong in it fails the test."""
    wrong, contexts = [], []

    def open_page(view, may_fail=False, **settings):
        context = browser.new_context(**{"viewport": {"width": 1000, "height": 800}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" and not may_fail else None)
        page.on("request", lambda asked: None if _is_own(asked.url, address) else wrong.append(asked.url))
        page.goto(f"http://{address}/#{view}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong, wrong


def _is_own(url, address):
    return url.startswith(f"http://{address}/")


def run(page):
    """Ask what the form says, and wait for the answer."""
    page.get_by_role("button", name="Run").click()
    sync_api.expect(page.locator("#status, #fault").filter(has_text=re.compile("."))).to_have_text(
        re.compile(r"^Answered in"), timeout=30_000
    )
    return page


def ask(address, task, inputs, **parameters):
    """What the server answers without a browser."""
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        body = json.dumps({"inputs": inputs, "parameters": parameters})
        connection.request("POST", f"/tasks/{task}", body, {"content-type": "application/json"})
        return json.loads(connection.getresponse().read())


def picture(page, name, tmp_path):
    """What the page looks like, for the documents, or only to see that it can be had."""
    folder = Path(os.environ.get("XLMR_PICTURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=path, full_page=True, animations="disabled")
    assert path.stat().st_size > 5000


# Views


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_renders(shown, view, tmp_path):
    page = run(shown(view))
    selector, count = VIEWS[view]
    page.locator(selector).first.wait_for()
    assert page.locator(selector).count() >= count
    assert page.locator("h2").text_content() in page.title()
    assert page.locator("#views a[aria-current=page]").get_attribute("href") == f"#{view}"
    picture(page, view, tmp_path)


def test_every_view_that_the_server_has_is_here(shown, address):
    page = shown("fill-mask")
    page.locator("#views a").first.wait_for()
    named = page.eval_on_selector_all("#views a", "links => links.map(link => link.hash.slice(1))")
    assert sorted(named) == sorted(VIEWS)


def test_candidates_are_those_of_the_server(shown, address):
    page = run(shown("fill-mask"))
    expected = ask(address, "fill-mask", "Ich weiß es <mask>.", top_k=5)
    assert page.locator(".bars .name").all_text_contents() == [row["token_str"] for row in expected]
    numbers = page.locator(".bars .number").all_text_contents()
    assert numbers == [f"{100 * row['score']:.1f} %" for row in expected]
    shares = page.eval_on_selector_all(".bar", "bars => bars.map(bar => bar.offsetWidth / bar.parentNode.clientWidth)")
    assert shares == pytest.approx([row["score"] for row in expected], abs=0.01)


def test_two_blanks_have_candidates_each(shown):
    page = shown("fill-mask")
    page.get_by_label("Text", exact=True).fill("Ich <mask> es <mask>.")
    run(page)
    assert page.locator("h3").all_text_contents() == ["Blank 1", "Blank 2"] and page.locator(".bars li").count() == 10


def test_marks_stand_where_the_server_says_behind_letters_of_two_units(shown, address):
    text = "😀𝔘 Angela Schmidt besuchte 東京."
    page = shown("token-classification")
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_label("What is labelled").select_option("words")
    run(page)
    found = ask(address, "token-classification", text, aggregation_strategy="words")
    marks = page.eval_on_selector_all(".text mark", "marks => marks.map(mark => mark.firstChild.data)")
    assert found and marks == [text[row["start"] : row["end"]] for row in found]
    labels = page.locator(".text mark small").all_text_contents()
    assert labels == [row.get("entity_group", row.get("entity")) for row in found]


def test_answers_are_marked_in_their_text(shown, address):
    page = run(shown("question-answering"))
    context = page.get_by_label("Text", exact=True).input_value()
    question = page.get_by_label("Question").input_value()
    found = ask(address, "question-answering", {"question": question, "context": context}, top_k=3, trim=True)
    assert page.locator("mark.rank-1").first.text_content().startswith(found[0]["answer"][:3])
    assert page.locator(".bars .name").all_text_contents() == [row["answer"] for row in found]
    shown_text = page.eval_on_selector(
        ".text", "text => [...text.childNodes].map(part => part.data ?? part.firstChild.data).join('')"
    )
    assert shown_text == context


def test_sentences_against_each_other(shown, address):
    page = shown("sentence-similarity")
    texts = ["Ein Text.", "Un texte.", "مرحبا"]
    page.get_by_label("Sentences", exact=True).fill("\n".join([*texts, "  "]))
    run(page)
    expected = ask(address, "sentence-similarity", {"source": texts, "target": texts})
    cells = page.locator("table.heat td.strong, table.heat td:not(:empty)").all_text_contents()
    assert [float(cell) for cell in cells] == pytest.approx([one for row in expected for one in row], abs=6e-4)
    assert page.locator("th[scope=row]").all_text_contents() == texts


def test_tokens_with_their_pieces_and_places(shown, address):
    text = "Unglaublich: 東京 is a city. 😀"
    page = run(shown("tokens"))
    rows = [row.split("\t") for row in page.locator("tbody").inner_text().splitlines()]
    found = ask(address, "tokens", text)
    assert [row[1] for row in rows] == [token["piece"] for token in found]
    assert [int(row[2]) for row in rows] == [token["id"] for token in found]
    assert page.eval_on_selector(".text", "text => text.textContent") == text


# Attention


def read(page):
    """From which token to which, and how much, in percent."""
    said = page.locator("output").inner_text()
    places = [int(place) - 1 for place in re.findall(r"\((\d+)\)", said)]
    return (*places, float(re.search(r"([\d.]+) %", said)[1]))


def test_attention_can_be_pointed_at(shown, address):
    page = run(shown("attention"))
    text = page.get_by_label("Text", exact=True).input_value()
    found = ask(address, "attention", text)
    size = len(found["tokens"])
    canvas = page.locator("canvas.large")
    box = canvas.bounding_box()
    for layer, head, row, column in ((0, 0, 3, 5), (1, 3, size - 1, 0)):
        page.get_by_role("button", name=f"Layer {layer + 1}, head {head + 1}", exact=True).click()
        side = box["width"] / size
        canvas.hover(position={"x": (column + 0.5) * side, "y": (row + 0.5) * side})
        share = 100 * found["attention"][layer][head][row][column]
        assert read(page) == (row, column, pytest.approx(share, abs=0.06))
    darkest = page.locator(".bars .name bdi").first.text_content()
    row = found["attention"][1][3][size - 1]
    assert darkest == found["tokens"][row.index(max(row))]


def test_attention_by_keys(shown):
    page = run(shown("attention"))
    canvas = page.locator("canvas.large")
    canvas.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    assert read(page)[:2] == (1, 1)
    page.keyboard.press("End")
    last = page.locator(".attended > span").count() - 1
    assert read(page)[:2] == (1, last)
    page.get_by_role("button", name="Layer 1, head 1", exact=True).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    pressed = page.locator("table.overview button[aria-pressed=true]")
    assert pressed.get_attribute("aria-label") == "Layer 2, head 2" == page.evaluate("document.activeElement.ariaLabel")
    assert page.locator("table.overview button[tabindex='0']").count() == 1, "one stop of Tab for all of them"
    assert page.locator("#attention-chosen").text_content() == "Layer 2, head 2"


# In the dark, on a small screen, from right to left


def background(page):
    colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return [int(part) for part in re.findall(r"\d+", colour)]


def test_in_the_dark(shown, tmp_path):
    pages = {scheme: run(shown("attention", color_scheme=scheme)) for scheme in ("light", "dark")}
    assert sum(background(pages["light"])) > 600 > 150 > sum(background(pages["dark"]))
    dots = {}
    for scheme, page in pages.items():
        dots[scheme] = page.evaluate(
            "[...document.querySelector('canvas.large').getContext('2d').getImageData(20, 2, 1, 1).data].slice(0, 3)"
        )
    assert dots["light"] != dots["dark"], "the picture is painted in the colours of the page"
    picture(pages["dark"], "attention-dark", tmp_path)
    pages["light"].emulate_media(color_scheme="dark")
    painted = "document.querySelector('canvas.large').getContext('2d').getImageData(20, 2, 1, 1).data[0]"
    assert any(pages["light"].evaluate(painted) == dots["dark"][0] or time.sleep(0.05) for _ in range(100))


RATIO = """
element => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).map(Number);
    const scale = colour.startsWith("color(srgb") ? 1 : 255;
    const [r, g, b] = parts.slice(0, 3).map((part) => part / scale)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(element);
  let behind = element;
  while (/^rgba\\(0, 0, 0, 0\\)$|^transparent$/.test(getComputedStyle(behind).backgroundColor) && behind.parentElement)
    behind = behind.parentElement;
  const [one, other] = [light(style.color), light(getComputedStyle(behind).backgroundColor)].sort((a, b) => b - a);
  return (one + 0.05) / (other + 0.05);
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["sentence-similarity", "token-classification", "fill-mask"])
def test_letters_can_be_read(shown, view, scheme):
    page = run(shown(view, color_scheme=scheme))
    for element in page.locator("h1, h2, p, a, label, button, small, td, th, mark, .name, .number").all():
        if element.is_visible() and element.text_content().strip():
            ratio = element.evaluate(RATIO)
            assert ratio >= 4.4, (element.evaluate("element => element.outerHTML"), ratio)


@pytest.mark.parametrize("view", VIEWS)
def test_on_a_small_screen(shown, view, tmp_path):
    page = run(shown(view, viewport={"width": 320, "height": 640}, device_scale_factor=2, has_touch=True))
    assert page.evaluate("document.documentElement.scrollWidth") <= 320, "only what is wide scrolls, by itself"
    if view == "fill-mask":
        picture(page, "small", tmp_path)


def test_from_right_to_left(shown, tmp_path):
    page = shown("fill-mask")
    page.get_by_label("Text", exact=True).fill(ARABIC)
    run(page)
    direction = "element => getComputedStyle(element).direction"
    assert page.get_by_label("Text", exact=True).evaluate(direction) == "rtl"
    page = shown("attention")
    page.get_by_label("Text", exact=True).fill(ARABIC.replace("<mask>", ""))
    run(page)
    assert page.locator(".attended").evaluate(direction) == "rtl"
    page = shown("tokens")
    page.get_by_label("Text", exact=True).fill(ARABIC)
    run(page)
    assert page.locator(".text").evaluate(direction) == "rtl"
    picture(page, "right-to-left", tmp_path)


# By keys, and for who does not see it


def test_all_of_it_by_keys(shown):
    page = shown("")
    page.get_by_role("button", name="Run").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if seen[-1] == "Compare sentences":
            page.keyboard.press("Enter")
        if seen[-1] == "field-texts":
            page.keyboard.press("Control+Enter")
            break
    page.locator("table.heat").wait_for()
    assert "Fill in blanks" in seen, seen


@pytest.mark.parametrize("view", VIEWS)
def test_everything_has_a_name(shown, view):
    page = run(shown(view))
    for element in page.locator("a, button, input, select, textarea, [role], [tabindex='0']").all():
        if element.is_visible() and element.get_attribute("role") not in ("alert", "status"):
            name = element.evaluate(
                "element => element.ariaLabel || element.textContent.trim() || element.labels?.[0]?.textContent"
            )
            assert name, element.evaluate("element => element.outerHTML")
    headings = page.eval_on_selector_all("h1, h2, h3", "all => all.map(one => Number(one.tagName[1]))")
    assert headings[:2] == [1, 2] and set(headings[2:]) <= {3}
    assert page.locator("main").count() == page.locator("header").count() == 1
    assert page.locator("html").get_attribute("lang") == "en"


# What may go wrong


def test_texts_are_texts(shown):
    page = shown("tokens")
    text = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>&amp;"
    page.get_by_label("Text", exact=True).fill(text)
    run(page)
    assert page.locator("#answer img, #answer script").count() == 0 and page.title() != "broken"
    assert page.eval_on_selector(".text", "text => text.textContent") == text


def test_a_fault_is_told_as_the_server_tells_it(shown, address):
    page = shown("fill-mask", may_fail=True)
    page.get_by_label("Text", exact=True).fill("No blank here.")
    page.get_by_role("button", name="Run").click()
    sync_api.expect(page.get_by_role("alert")).not_to_be_empty()
    assert page.get_by_role("alert").text_content() == ask(address, "fill-mask", "No blank here.")["error"]
    page.get_by_label("Text", exact=True).fill("A <mask> here.")
    run(page)


def test_a_server_that_is_gone_is_told(shown):
    page = shown("fill-mask", may_fail=True)
    page.get_by_role("button", name="Run").wait_for()
    page.route("**/tasks/*", lambda route: route.abort())
    page.get_by_role("button", name="Run").click()
    sync_api.expect(page.get_by_role("alert")).not_to_be_empty()
    assert "cannot be reached" in page.get_by_role("alert").text_content()


def test_a_key_is_asked_for(shown, address):
    page = shown("fill-mask", may_fail=True)

    def refuse_without(route):
        if route.request.headers.get("authorization") == "Bearer secret":
            route.continue_()
        else:
            route.fulfill(status=401, content_type="application/json", body='{"error": "expected the key"}')

    page.route("**/tasks", refuse_without)
    page.route("**/tasks/*", refuse_without)
    page.reload()
    page.get_by_label("Key of this server").fill("secret")
    page.keyboard.press("Enter")
    run(page)
    assert page.get_by_label("Key of this server").is_hidden() and "secret" not in page.url
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_what_was_typed_is_there_when_one_comes_back(shown):
    page = shown("fill-mask")
    page.get_by_label("Text", exact=True).fill("Mine is <mask>.")
    page.get_by_role("link", name="Tokens").click()
    page.get_by_role("link", name="Fill in blanks").click()
    assert page.get_by_label("Text", exact=True).input_value() == "Mine is <mask>."
