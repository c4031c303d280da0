"""The page: what it is made of, its texts without a browser, and all of it in Chromium."""

import csv
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from playwright._impl._driver import compute_driver_executable
from playwright.sync_api import Browser, Page, expect, sync_playwright
from served import served

from bantam.kinds import classify
from bantam.kinds import texts as writing
from bantam.serve import keys, page
from bantam.serve.app import app
from bantam.serve.guard import Settings
from bantam.serve.shelf import Shelf
from tiny_tasks import packed

KEY = "sk-vQ8hT2mYw0Zr5uKxNf3J"
HOSTILE = "<img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
SOURCES = {
    file.name: file.read_text("utf-8")
    for file in sorted(page.FOLDER.iterdir())
    if file.suffix in page.MEDIA
}
SCRIPTS = {name: text for name, text in SOURCES.items() if name.endswith(".js")}


class Tags(HTMLParser):
    """What a page is made of: tags with their attributes, and the text in scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style"):
            self.inline += data.strip()


INDEX = Tags(SOURCES["index.html"])


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app(Shelf({}), Settings()), base_url="http://localhost") as client:
        yield client


def test_the_page_and_its_files_are_served(client: TestClient) -> None:
    sent = client.get("/")
    assert sent.status_code == 200
    assert sent.headers["content-type"] == "text/html; charset=utf-8"
    for name, source in SOURCES.items():
        sent = client.get("/" if name == "index.html" else f"/page/{name}")
        assert sent.text == source
        assert sent.headers["content-type"] == page.MEDIA[Path(name).suffix]
        assert sent.headers["x-content-type-options"] == "nosniff"
        policy = dict(part.split(maxsplit=1) for part in sent.headers.get_list(
            "content-security-policy")[0].split("; "))  # fmt: skip
        assert len(sent.headers.get_list("content-security-policy")) == 1
        assert policy["default-src"] == "'self'"
        assert not [name for name in policy if name.endswith("-src") and "unsafe" in policy[name]]


@pytest.mark.parametrize(
    "path", ["/page/", "/page/page.py", "/page/..%2fpage.py", "/page/%2e%2e/page.py", "/page"]
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_all_that_the_page_names_is_there() -> None:
    named = {
        value
        for tag, attributes in INDEX.tags
        for name, value in attributes.items()
        if name in ("src", "href") and value and not (tag == "a" or value.startswith("#"))
    }
    assert named == {"page/page.js", "page/page.css", "page/icon.svg"}
    for text in SCRIPTS.values():
        assert set(re.findall(r'from "\./([^"]+)"', text)) <= set(SOURCES)
    ids = [attributes["id"] for _, attributes in INDEX.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {id for text in SCRIPTS.values() for id in re.findall(r'\$\("([^"]+)"\)', text)}
    assert wanted <= set(ids)
    pictures = {f"i-{name}" for text in SCRIPTS.values() for name in re.findall(
        r'\b(?:icon|iconButton)\("([^"]+)"', text)}  # fmt: skip
    assert pictures <= set(ids)
    for tag, attributes in INDEX.tags:  # every field has a name that is read out
        if tag in ("input", "select", "textarea") and attributes.get("type") != "checkbox":
            assert f'for="{attributes["id"]}"' in SOURCES["index.html"]


def test_nothing_is_run_that_stands_in_a_text() -> None:
    assert INDEX.inline == ""
    for _, attributes in INDEX.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    for name, text in SOURCES.items():
        found = re.sub(r'"http://www\.w3\.org/2000/svg"', "", text)
        assert not re.search(r"https?://|\burl\(|@import", found), name
        bad = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function"
        assert not re.search(bad, text), name


def run(script: str) -> Any:
    """What a script writes with `tell`, where the modules of the page can be imported."""
    node, _ = compute_driver_executable()
    head = (
        f"const page = {json.dumps(page.FOLDER.as_uri())};"
        "const tell = (told) => console.log(JSON.stringify(told));"
    )
    command = [str(node), "--input-type=module"]
    done = subprocess.run(
        command, input=head + script, capture_output=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def call(name: str, *arguments: Any) -> Any:
    """What a function of text.js gives."""
    told = ", ".join(json.dumps(argument) for argument in arguments)
    return run(f"const m = await import(page + '/text.js'); tell(m.{name}({told}));")


def plain(text: str) -> dict[str, str]:
    return {"kind": "plain", "text": text}


def test_markdown_is_read() -> None:
    text = (
        "# Birds\n"
        "A **hen**, a `2 ** 3` and *one* more; 2 * 3 * 4 and a__b__c stay.\n"
        "The next line\n\n"
        "- first\n  goes on\n- second\n    1. below\n2. third\n"
        "```python\nprint('**no**')\n\n- no list\n```\n> said\n> twice\n\n```\nstill open"
    )
    head, first, bullets, below, third, code, quote, still = call("blocks", text)
    assert head == {"kind": "heading", "spans": [plain("Birds")]}
    assert [span["kind"] for span in first["spans"]] == [
        *("plain", "strong", "plain", "code", "plain", "em", "plain"),
    ]
    assert first["spans"][3]["text"] == "2 ** 3"
    assert first["spans"][-1]["text"] == " more; 2 * 3 * 4 and a__b__c stay.\nThe next line"
    assert [[span["text"] for span in item] for item in bullets["items"]] == [
        ["first", "\n", "goes on"],
        ["second"],
    ]
    assert (below["ordered"], below["depth"], below["start"]) == (True, 2, 1)
    assert (third["ordered"], third["depth"], third["start"]) == (True, 0, 2)
    assert code == {"kind": "code", "text": "print('**no**')\n\n- no list"}
    assert "".join(span["text"] for span in quote["spans"]) == "said\ntwice"
    assert still == {"kind": "code", "text": "still open"}


def test_no_text_is_lost_and_none_takes_long() -> None:
    """Also marks without end, which simple expressions would search again and again."""
    texts = [mark * 100_000 for mark in ("*", "`", "**", "* ", "_ _", "#", "- ", "> ", "1. ")]
    texts += ["*a " * 50_000, "`a **b " * 30_000, "[" * 100_000, " " * 200_000 + "x", "# " * 50_000]
    began = time.perf_counter()
    found = run(
        "const m = await import(page + '/text.js');"
        f"tell({json.dumps(texts)}.map((text) => m.blocks(text).length + m.sentences(text)));"
    )
    assert len(found) == len(texts)
    assert time.perf_counter() - began < 10
    assert call("spans", "a *b `c") == [plain("a *b `c")]
    assert call("spans", HOSTILE) == [plain(HOSTILE)]


def test_csv_is_read_as_it_was_written_and_no_cell_is_a_formula() -> None:
    rows = [["text", "p"], ['say "a, b"\nand c', 0.25], ["=HYPERLINK(1)", None], ["-5", True]]
    found = list(csv.reader(call("csv", rows).splitlines(keepends=True)))
    assert found == [
        ["text", "p"],
        ['say "a, b"\nand c', "0.25"],
        ["'=HYPERLINK(1)", ""],
        ["'-5", "true"],
    ]


def test_figures_claim_no_certainty_that_is_none() -> None:
    shares = [1, 0.9996, 0.5, 0.0004, 0]
    assert [call("percent", share) for share in shares] == [
        *("100.0%", "> 99.9%", "50.0%", "< 0.1%", "0.0%"),
    ]
    assert call("large", 134_515_008) == "135M"
    assert call("large", 1_240_000_000, " ") == "1.2 G"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_however_they_are_cut(size: int) -> None:
    stream = (
        'data: {"text": "Hühner 🐔"}\r\n\r\n: a comment\n\nevent: x\ndata: {"text":\ndata: 2}\n\n'
        "data: [DONE]\n\ndata: never read\n\n"
    )
    script = """
        const { events, Gone } = await import(page + "/server.js");
        const bytes = new TextEncoder().encode(STREAM);
        const body = (end) => new ReadableStream({ start(to) {
            for (let at = 0; at < end; at += SIZE)
                to.enqueue(bytes.slice(at, Math.min(at + SIZE, end)));
            to.close();
        } });
        const found = [];
        for await (const event of events(body(bytes.length))) found.push(event.text);
        try { for await (const event of events(body(40))) found.push(event.text); }
        catch (error) { found.push(error instanceof Gone); }
        tell(found);
    """
    script = script.replace("STREAM", json.dumps(stream)).replace("SIZE", str(size))
    assert run(script) == ["Hühner 🐔", 2, "Hühner 🐔", True]


# In a browser

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("page")
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    labels = classify.task("labels", "Is it good?", ["yes", "no", HOSTILE])
    made = {
        "labels": replace(labels, thresholds=(0.0, 0.0, 1.0), max_text_tokens=100),
        "several": classify.task("several", "", ["yes", "no"], multi=True),
        "record": replace(
            writing.task("extract", "record", "", answer_schema=schema), max_answer_tokens=60
        ),
        "calls": replace(writing.task("extract", "calls", "", most_calls=1), max_answer_tokens=60),
        "text": replace(writing.task("generate", "text", "Say it."), max_answer_tokens=20),
    }
    return {"chat": tiny_model} | {
        name: packed(folder / f"{name}.gguf", tiny_model, task) for name, task in made.items()
    }


@pytest.fixture(scope="module")
def address(places: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(feedback=tmp_path_factory.mktemp("feedback") / "feedback.db")
    with served(Shelf(places, threads=1, parallel=2), settings) as address:
        yield address


Open = Callable[..., Page]


@contextmanager
def opening(browser: Browser, address: str) -> Iterator[Open]:
    """Opens the page for some models. In the end nothing may have been asked of anybody else, and
    nothing may have gone wrong in the page, refusals of the server apart."""
    contexts, wrong = [], []

    def told(message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    def asked(request: Any) -> None:
        if not request.url.startswith((address, f"blob:{address}")):
            wrong.append(f"asked {request.url}")

    def open(query: str, **settings: Any) -> Page:
        context = browser.new_context(**settings)
        contexts.append(context)
        there = context.new_page()
        there.set_default_timeout(20_000)
        there.on("console", told)
        there.on("pageerror", lambda error: wrong.append(str(error)))
        there.on("request", asked)
        there.on("dialog", lambda dialog: wrong.append("a script was run"))
        there.goto(f"{address}/?{query}")
        return there

    yield open
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def open(browser: Browser, address: str) -> Iterator[Open]:
    with opening(browser, address) as open:
        yield open


PHONE = {
    "viewport": {"width": 375, "height": 740},
    "is_mobile": True,
    "has_touch": True,
}


def ask(there: Page, text: str) -> None:
    there.fill("#text", text)
    there.click("#send")
    settled(there)


def settled(there: Page) -> None:
    expect(there.locator(".answer.running")).to_have_count(0, timeout=30_000)
    expect(there.locator("#send")).not_to_have_text("Stop")


def feedback(there: Page) -> Any:
    return there.request.get(f"{there.url.partition('/?')[0]}/feedback").json()["rows"]


@slow
def test_a_conversation(open: Open) -> None:
    there = open("model=chat")
    there.click("#open")
    there.fill("#system", "Be brief.")
    there.fill("#length", "8")
    there.click("#open")
    sent: list[Any] = []
    there.on("request", lambda request: sent.append(request.post_data_json or {}))
    ask(there, f"Hello {HOSTILE}")
    expect(there.locator(".asked")).to_contain_text(HOSTILE)
    expect(there.locator(".facts").last).to_contain_text("tokens/s")
    ask(there, "And again")
    messages = sent[-1]["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[0]["content"] == "Be brief."
    assert sent[-1]["max_completion_tokens"] == 8
    assert there.locator("#told p").count() > 0  # read out
    there.locator(".again:visible").click()
    settled(there)
    assert sent[-1]["messages"][-1]["content"] == "And again"
    expect(there.locator(".turn")).to_have_count(2)


@slow
def test_an_answer_is_stopped(browser: Browser, smollm: Path) -> None:
    """Of a real model, since a tiny one has written all before anybody can press a key."""
    with (
        served(Shelf({"smollm": smollm}, threads=1, parallel=1)) as address,
        opening(browser, address) as open,
    ):
        there = open("model=smollm")
        there.click("#open")
        there.fill("#length", "1000")
        for stop in ("Escape", "Enter"):  # the second answer shows that the slot was free again
            there.fill("#text", "Tell me a very long story about a hen.")
            there.click("#send")
            expect(there.locator(".running .reply")).not_to_be_empty(timeout=20_000)
            there.locator("#send").focus()
            there.keyboard.press(stop)
            settled(there)
            expect(there.locator(".facts").last).to_contain_text(re.compile("^stopped · first"))
        expect(there.locator(".turn")).to_have_count(2)


@slow
def test_conversations_are_kept_only_if_asked_for(open: Open) -> None:
    there = open("model=chat")
    there.click("#open")
    there.fill("#length", "4")
    ask(there, "Hello")
    there.reload()
    expect(there.locator("#ask")).to_be_visible()
    expect(there.locator(".turn")).to_have_count(0)
    there.click("#open")
    there.check("#keep")
    ask(there, "Hello")
    there.reload()
    expect(there.locator(".asked")).to_contain_text("Hello")
    there.click("#open")
    there.uncheck("#keep")
    there.reload()
    expect(there.locator("#ask")).to_be_visible()
    expect(there.locator(".turn")).to_have_count(0)


@slow
def test_a_label_with_its_probabilities_and_feedback(open: Open) -> None:
    there = open("model=labels")
    ask(there, "The picture is sharp")
    expect(there.locator(".bars li")).to_have_count(3)
    expect(there.locator(".bars")).to_contain_text(HOSTILE)
    expect(there.locator(".certainty")).to_contain_text(re.compile("^(Sure|Not sure)"))
    before = feedback(there)
    good = there.get_by_role("button", name="Good answer")
    good.click()
    expect(good).to_have_attribute("aria-pressed", "true")
    there.get_by_role("button", name="Correct it").click()
    there.get_by_label("The right label").select_option("no")
    there.get_by_role("button", name="Keep", exact=True).click()
    expect(there.locator(".correction")).to_be_hidden()
    assert feedback(there) == before + 1  # of one answer one thing is said
    good.click()
    expect(good).to_have_attribute("aria-pressed", "false")


@slow
def test_many_texts_are_a_table_and_a_file(open: Open) -> None:
    there = open("model=labels")
    there.check("#many")
    texts = [f"The picture {number} is sharp" for number in range(40)]
    ask(there, "\n".join(["", *texts[:20], "  ", *texts[20:]]))
    expect(there.locator("tbody tr:not(.whole)")).to_have_count(40)
    there.get_by_role("button", name="Details of text 3", exact=True).click()
    expect(there.locator(".whole .bars li")).to_have_count(3)
    with there.expect_download() as saved:
        there.get_by_role("button", name="CSV").click()
    with Path(saved.value.path()).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == texts
    for row in rows:
        assert row["answer"] in ("yes", "no", HOSTILE)
        assert sum(float(row[f"p({label})"]) for label in ("yes", "no", HOSTILE)) > 0.99


@slow
def test_labels_objects_calls_and_texts(open: Open) -> None:
    there = open("model=several")
    ask(there, "The picture")
    there.get_by_role("button", name="Correct it").click()
    before = feedback(there)
    there.get_by_label("yes", exact=True).check()
    there.get_by_label("no", exact=True).uncheck()
    there.get_by_role("button", name="Keep", exact=True).click()
    expect(there.locator(".correction")).to_be_hidden()
    assert feedback(there) == before + 1

    there.select_option("#model", "record")
    ask(there, "The picture")
    assert isinstance(json.loads(there.locator(".json").inner_text())["ok"], bool)
    there.get_by_role("button", name="Correct it").click()
    there.get_by_label("The right JSON").fill("{")
    there.get_by_role("button", name="Keep", exact=True).click()
    expect(there.locator(".correction .wrong")).to_contain_text("no JSON")
    there.get_by_label("The right JSON").fill('{"ok": "of another type"}')
    there.get_by_role("button", name="Keep", exact=True).click()
    expect(there.locator(".correction .wrong")).to_contain_text("Not kept")

    there.select_option("#model", "calls")
    there.fill("#text", "Praise it")
    there.fill("#tools", "[{")
    there.click("#send")
    expect(there.locator("#tools-hint")).to_contain_text("no JSON")
    expect(there.locator("#tools")).to_be_focused()
    there.click("#example")
    there.click("#send")
    settled(there)
    calls = json.loads(there.locator(".json").inner_text())
    assert {call["name"] for call in calls} <= {"get_weather"}

    there.select_option("#model", "text")
    ask(there, "The picture")
    expect(there.locator(".written")).to_be_visible()


@slow
def test_two_models_side_by_side(open: Open) -> None:
    there = open("model=chat&beside=labels")
    there.click("#open")
    there.fill("#length", "8")
    ask(there, "The picture is sharp")
    expect(there.locator(".who")).to_have_text(["chat", "labels"])
    left, right = (there.locator(".answer").nth(n).bounding_box() for n in range(2))
    assert left and right and left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
    expect(there.locator(".bars li")).to_have_count(3)
    there.select_option("#beside", "")
    expect(there.locator(".turn")).to_have_count(0)  # this was said to both
    assert there.url.endswith("?model=chat")


@slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(open: Open, scheme: str) -> None:
    for query in ("model=chat", "model=labels", "model=calls", "model=chat&beside=labels"):
        there = open(query, color_scheme=scheme, **PHONE)
        if there.locator("#open").is_visible():
            there.click("#open")
            there.fill("#length", "30")
        if there.locator("#example").is_visible():
            there.click("#example")
        if there.locator("#many").is_visible():
            there.check("#many")
        ask(there, "w" * 120 + "\nThe picture is sharp")
        assert there.evaluate("document.documentElement.scrollWidth") == 375
        for button in there.locator("button:visible, select:visible").all():
            box = button.bounding_box()
            assert box and box["height"] >= 44 and box["width"] >= 44, button.inner_text()


@slow
def test_all_is_reached_with_the_keyboard(open: Open) -> None:
    there = open("model=labels")
    there.locator("#text").focus()
    there.keyboard.type("The picture is sharp")
    there.keyboard.press("Enter")
    settled(there)
    expect(there.locator("#text")).to_be_focused()
    names = []
    for _ in range(12):
        there.keyboard.press("Tab")
        names.append(
            there.evaluate(
                "() => { const e = document.activeElement;"
                " return e.getAttribute('aria-label') ?? e.id }"
            )
        )
    for name in ("many", "anew", "send", "Copy", "Ask again", "Good answer", "Correct it"):
        assert name in names, names


@slow
def test_a_key_is_asked_for(browser: Browser, places: dict[str, Path]) -> None:
    settings = Settings(keys=keys.read(KEY, "here"))
    with (
        served(Shelf(places, threads=1), settings) as address,
        opening(browser, address) as open,
    ):
        there = open("model=labels")
        expect(there.locator("#key")).to_be_focused()
        there.fill("#key", "another key, which is wrong")
        there.keyboard.press("Enter")
        expect(there.locator("#locked")).to_contain_text("not known")
        there.fill("#key", KEY)
        there.keyboard.press("Enter")
        ask(there, "The picture is sharp")
        expect(there.locator(".bars li")).to_have_count(3)
        expect(there.get_by_role("button", name="Good answer")).to_have_count(0)  # none is kept
        assert there.evaluate("localStorage.length") == 0


@slow
def test_a_server_that_goes(browser: Browser, places: dict[str, Path]) -> None:
    with served(Shelf(places, threads=1)) as address:
        there = browser.new_page()
        there.goto(f"{address}/?model=labels")
        expect(there.locator("#ask")).to_be_visible()
    ask(there, "The picture is sharp")
    expect(there.locator("#gone")).to_be_visible()
    expect(there.locator(".answer .wrong")).to_contain_text("does not answer")
    expect(there.get_by_role("button", name="Try again")).to_be_visible()
    there.close()


@slow
def test_what_is_refused_is_told(open: Open) -> None:
    there = open("model=chat")
    ask(there, "picture " * 2000)
    expect(there.locator(".answer .wrong")).to_contain_text("tokens")
