"""Pages of explanations: what they say, and that no text is more than text."""

from __future__ import annotations

import base64
import html.parser
import math
import re

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
from langzoo.models.explanation import pages
from langzoo.models.explanation.attribution import AttentionMaps, Attribution, Surprisal

EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&amp;", "\x00")


class Reader(html.parser.HTMLParser):
    """What a browser would find: elements, their attributes, text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page.html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def tokens(self):
        return [a for tag, a in self.elements if a.get("class", "")[:5] == "token"]


def surprisal_page(tokens):
    scores = tuple(-0.5 * place for place in range(len(tokens)))
    return pages.surprisal_page([Surprisal(tokens, scores)], "<b>title")


def attribution_page(tokens):
    scores = np.arange(len(tokens)) - 1.5
    return pages.attribution_page(
        Attribution(tokens, scores, tokens, -1.0, -3.0, "integrated_gradients")
    )


def attention_page(tokens):
    size = len(tokens)
    weights = np.tril(np.ones((2, 3, size, size), np.float32)) / size
    return pages.attention_page(AttentionMaps(tokens, weights))


@pytest.mark.parametrize("make", [surprisal_page, attribution_page, attention_page])
def test_text_is_escaped_and_nothing_is_loaded(make):
    page = make(EVIL)
    found = Reader(page)
    assert not {"script", "img", "b", "link", "iframe"} & {t for t, _ in found.elements}
    assert "\x00" not in page.html
    for _, attributes in found.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "data:image/png").startswith("data:image/png")
    assert not re.search(r"https?://|url\(|@import", page.html)
    assert "default-src 'none'" in page.html


def test_a_page_in_a_notebook_stands_in_its_own_frame():
    shown = Surprisal(EVIL, (-1.0,) * 4)._repr_html_()
    (frame,) = re.findall(r'<iframe srcdoc="([^"<>]*)"', shown)
    assert html.unescape(frame) == pages.surprisal_page([Surprisal(EVIL, (-1,) * 4)])[0]


def test_surprisal_is_in_bits_and_coloured_by_them():
    probabilities = [1.0, 0.5, 2**-6, 2**-40]
    scored = Surprisal(("a", "b\n", "c", "</s>"), tuple(map(math.log, probabilities)))
    found = Reader(pages.surprisal_page([scored]))
    numbers = [token["data-number"] for token in found.tokens()]
    assert [float(number) for number in numbers] == [0, 1, 6, 40]
    shares = [re.match(r"--share: ([\d.]+)", t["style"])[1] for t in found.tokens()]
    assert [float(share) for share in shares] == [0, 0.083, 0.5, 1]
    assert found.tokens()[2]["title"] == "6.00 bits, p = 0.0156"
    assert "47.0 bits over 4 tokens, 11.75 a token: perplexity 3,444.3" in found.text
    assert "b↵\nc" in found.text


def test_the_most_surprising_tokens_are_listed_with_what_is_before_them():
    tokens = tuple(f"t{place}" for place in range(20))
    page = pages.surprisal_page([Surprisal(tokens, tuple(range(0, -20, -1)))])
    row = r'<td class="number">(.*?)</td><td><code>(.*?)</code></td><td><code>(.*?)<'
    rows = re.findall(row, page.html)
    assert [token for _, token, _ in rows] == [f"t{19 - place}" for place in range(10)]
    assert rows[0][0] == "27.4"
    assert rows[0][2] == "".join(tokens[:19])[-40:]


def test_an_attribution_has_its_sign_and_its_sums():
    scores = np.array([0.0, 2.0, -1.0])
    attribution = Attribution(
        ("<s>", "a", "b"), scores, ("c", "d"), -1.0, -2.1, "leave_one_out"
    )
    assert attribution.residual == pytest.approx(0.1)
    found = Reader(pages.attribution_page(attribution))
    assert [token["data-number"] for token in found.tokens()] == [
        "+0.00",
        "+2.00",
        "-1.00",
    ]
    tints = [token["style"].partition("--tint: ")[2] for token in found.tokens()]
    assert tints == ["var(--hot)", "var(--hot)", "var(--cold)"]
    assert "log p of cd, by leave one out" in found.text
    assert "sum to +1.000 of the difference of +1.100 nats" in found.text


def test_a_map_shows_the_root_of_each_weight_as_a_pixel():
    weights = np.array([[[[1.0, 0.0], [0.25, 0.75]]]], np.float32)
    found = Reader(pages.attention_page(AttentionMaps(("x", "y"), weights)))
    (image,) = (a for tag, a in found.elements if tag == "image")
    png = base64.b64decode(image["href"].partition(",")[2])
    opacity = tf.io.decode_png(png, channels=4)[..., 3].numpy()
    np.testing.assert_array_equal(opacity, [[255, 0], [128, 221]])
    assert "layer 0, head 0" in found.text


def test_a_page_is_saved_as_utf_8(tmp_path):
    page = pages.surprisal_page([Surprisal(("naïve €",), (-1.0,))])
    page.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page.html
    assert '<meta charset="utf-8">' in page.html
