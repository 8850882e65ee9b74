"""The playground in the system's Chromium, in front of a real model."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
from langzoo.serving.client import Client
from langzoo.serving.gateway import app as gateway_app
from langzoo.serving.gateway.options import GatewayOptions
from langzoo.serving.server import ModelServer
from playwright.sync_api import Locator, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PAGE = Path(gateway_app.__file__).with_name("playground.html")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    profile = tmp_path_factory.mktemp("profile")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile),
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport={"width": 1100, "height": 800},
        )
        context.set_default_timeout(30_000)
        expect.set_options(timeout=30_000)
        yield context
        context.close()


@pytest.fixture
def open_page(context: Any) -> Iterator[Callable[[str], Page]]:
    """Opens a playground; whatever it logs or cannot load fails the test."""
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def open_(url: str) -> Page:
        page.goto(url)
        expect(page.locator("#model option")).not_to_have_count(0)
        return page

    yield open_
    page.close()
    # What the gateway refuses, Chromium logs itself.
    assert [text for text in complaints if "status of 400" not in text] == []


@pytest.fixture
def page(open_page: Callable[[str], Page], gateway_url: str) -> Page:
    return open_page(gateway_url)


@pytest.fixture(scope="module")
def subwords(gateway_server: ModelServer) -> Iterator[Client]:
    with Client(gateway_server.grpc_address, "subwords") as client:
        yield client


def write(page: Page, prompt: str, **settings: str) -> None:
    """Fills the form in and lets the model write to the end."""
    page.get_by_label("Model").select_option("subwords")
    page.get_by_label("Prompt").fill(prompt)
    for label, value in settings.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Write").click()
    expect(page.get_by_role("status")).to_contain_text("new tokens after")


def visible(page: Page) -> Locator:
    """The tokens that a mouse can find: neither empty nor of white space alone."""
    return page.locator(".token", has_text=re.compile(r"\S"))


@in_chromium
def test_it_writes_what_the_model_writes(page: Page, subwords: Client) -> None:
    [expected] = subwords.generate(["The value"], 24, temperature=0.5, seed=3)
    write(page, "The value", **{"New tokens": "24", "Temperature": "0.5", "Seed": "3"})
    output = page.locator("#output")
    # The sign before a line break is the page's.
    assert output.text_content() == "The value" + expected.text
    expect(output.locator(".token")).not_to_have_count(0)
    page.get_by_role("button", name="Add to prompt").click()
    shown = expected.text.replace("\r", "\n")  # as a field of text has it
    expect(page.get_by_label("Prompt")).to_have_value("The value" + shown)


@in_chromium
def test_a_token_shows_what_else_was_likely(page: Page, subwords: Client) -> None:
    [expected] = subwords.generate(["The value"], 8, seed=3)
    write(page, "The value", **{"New tokens": "8", "Temperature": "1", "Seed": "3"})
    tip = page.get_by_role("tooltip")
    expect(tip).to_be_hidden()
    visible(page).first.hover()
    expect(tip).to_contain_text("bits")
    likeliest = {other.token for other in expected.alternatives[0]}
    rows = len(likeliest | {expected.tokens[0]})
    expect(tip.locator("tr")).to_have_count(rows)
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    # And without a mouse.
    page.mouse.move(0, 0)
    page.locator("#output").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".token").nth(1)).to_be_focused()
    expect(tip).to_be_visible()


@in_chromium
def test_it_scores_a_text(page: Page, subwords: Client) -> None:
    text = "naïve 10 €\nand more"
    [scores] = subwords.token_scores([text])
    page.get_by_role("tab", name="Score").click()
    page.get_by_label("Model").select_option("subwords")
    page.get_by_label("Text to score").fill(text)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status")).to_contain_text("without its end")
    assert page.locator("#output").text_content() == text
    bits = -sum(scores.log_probabilities[:-1]) / 0.6931471805599453
    measures = page.locator("#measures")
    expect(measures).to_contain_text(f"{bits:.1f}")
    expect(measures).to_contain_text(f"{bits / len(text.encode()):.3f}")
    # The colours say what the numbers say: the most surprising token has the strongest.
    surprise = page.locator(".token").evaluate_all(
        "all => all.map(one => Number(one.style.getPropertyValue('--surprise')))"
    )
    assert max(surprise) > min(surprise) >= 0


@in_chromium
def test_a_classifier_shows_its_labels(
    open_page: Callable[[str], Page], answering_url: str, answering_server: ModelServer
) -> None:
    page = open_page(answering_url)
    with Client(answering_server.grpc_address, "labels") as client:
        [expected] = client.classify(["To be?"])
    expect(page.get_by_role("tab")).to_have_text(["Classify"])
    page.get_by_label("Text to classify").fill("To be?")
    page.keyboard.press("Control+Enter")
    rows = page.locator("#output tr")
    expect(rows).to_have_count(3)
    assert rows.locator("th").all_inner_texts() == list(expected.labels)
    expect(rows.first).to_contain_text(f"{100 * expected.probabilities[0]:.0f} %")
    page.set_viewport_size({"width": 320, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@in_chromium
def test_a_masked_model_fills_gaps(
    open_page: Callable[[str], Page], answering_url: str
) -> None:
    page = open_page(answering_url)
    page.get_by_label("Model").select_option("gaps")
    expect(page.get_by_role("tab")).to_have_text(["Fill"])
    page.get_by_label("Text with gaps").fill("To [MASK], or not to [MASK]")
    page.get_by_role("button", name="Fill").click()
    expect(page.locator("#output table")).to_have_count(2)
    expect(page.locator("#output table").first.locator("tr")).to_have_count(10)
    expect(page.locator(".filled")).to_have_count(2)
    page.get_by_label("Text with gaps").fill("no gap")
    page.get_by_role("button", name="Fill").click()
    expect(page.get_by_role("alert")).to_have_text(
        "Write [MASK] where a piece is missing"
    )
    # And back to a model that says labels.
    page.get_by_label("Model").select_option("labels")
    expect(page.get_by_role("tab")).to_have_text(["Classify"])


@in_chromium
def test_a_tagger_shows_its_tags(
    open_page: Callable[[str], Page], answering_url: str, answering_server: ModelServer
) -> None:
    page = open_page(answering_url)
    text = "Ann saw Bob in a town"
    with Client(answering_server.grpc_address, "tags") as client:
        [expected] = client.tag([text])
    page.get_by_label("Model").select_option("tags")
    expect(page.get_by_role("tab")).to_have_text(["Tag"])
    page.get_by_label("Text to tag").fill(text)
    page.get_by_role("button", name="Tag").click()
    words = page.locator(".tagged")
    expect(words).to_have_count(6)
    shown = [tag if tag != "O" else "" for tag in expected.tags]
    assert page.locator(".tagged rt").all_text_contents() == shown
    told = [
        title.partition(",")[0]
        for title in words.evaluate_all("a => a.map(w => w.title)")
    ]
    assert told == list(expected.tags)
    expect(page.locator("#output tr")).to_have_count(len({*expected.tags}))


@in_chromium
def test_it_takes_a_megabyte(page: Page) -> None:
    line, put = "The value of an object, and more.\n", "(field, it) => field.value = it"
    page.get_by_label("Model").select_option("subwords")
    page.get_by_label("Prompt").evaluate(put, line * 30_000)
    page.get_by_role("button", name="Write").click()
    expect(page.get_by_role("status")).to_contain_text("new tokens after 24")
    page.get_by_role("tab", name="Score").click()
    # More than is shown token by token; a model takes long for a megabyte.
    text = line * 5_000
    page.get_by_label("Text to score").evaluate(put, text)
    page.get_by_role("button", name="Score").click()
    expect(page.get_by_role("status")).to_contain_text("its end", timeout=120_000)
    assert page.locator("#output").text_content() == text
    expect(page.locator(".token")).to_have_count(20_000)


@in_chromium
def test_an_error_is_told(page: Page) -> None:
    page.get_by_label("Seed", exact=True).fill("1.5")
    page.get_by_label("Prompt").fill("x")
    page.get_by_role("button", name="Write").click()
    expect(page.get_by_role("alert")).to_contain_text("valid integer")
    expect(page.get_by_role("button", name="Write")).to_be_enabled()


@in_chromium
def test_an_api_key_is_asked_for(
    context: Any, gateway: Callable[..., Any], gateway_server: ModelServer
) -> None:
    options = GatewayOptions(api_keys=["secret"])
    with gateway(gateway_server.grpc_address, options) as url:
        page = context.new_page()
        page.goto(url)
        expect(page.get_by_role("alert")).to_contain_text("API key")
        page.get_by_label("API key").fill("secret")
        page.get_by_label("Prompt").click()
        expect(page.locator("#model option")).to_have_count(2)
        write(page, "x", **{"New tokens": "4"})
        page.close()


@in_chromium
@pytest.mark.parametrize("width", [320, 390, 800, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen(page: Page, width: int, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    write(page, "The value", **({"New tokens": "40"} if width > 832 else {}))
    visible(page).last.click()
    expect(page.get_by_role("tooltip")).to_be_visible()
    scrolled = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert scrolled <= 0
    box = page.get_by_role("tooltip").bounding_box()
    assert box is not None
    assert 0 <= box["x"] <= box["x"] + box["width"] <= width
    light = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
    )
    assert (sum(light) > 382) == (scheme == "light")


@in_chromium
def test_every_control_has_a_name(page: Page) -> None:
    for control in page.locator("button, select, input, textarea").all():
        name = control.evaluate(
            "one => one.getAttribute('aria-label') || one.textContent.trim()"
            " || [...one.labels].map(label => label.textContent).join()"
        )
        assert name, control


def test_the_page_loads_nothing_else() -> None:
    html = PAGE.read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html)
    assert all(link.startswith("data:") for link in links), links
    fetched = re.findall(r"fetch\(\"([^\"]+)", html)
    known = [
        "signatures?model=",
        "tokenizer_info?model=",
        "v1/completions",
        "v1/models",
    ]
    assert sorted(set(fetched)) == known
