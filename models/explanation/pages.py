"""Explanations as HTML pages that need nothing else: no script, no other file.

Colours follow the reader's light or dark mode; every colour's number can be shown, and
is in the tooltip. All text is escaped, and the page may load nothing.
"""

from __future__ import annotations

import base64
import html
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

# Tokens this surprising, and those beyond, have the full colour.
FULL_BITS = 12.0
_LISTED = 10
_CONTEXT = 40
_CELL = 13
_LARGEST = 640

_STYLE = """
:root { color-scheme: light dark; --hot: #f4772e; --cold: #4a90d9; --line: #8884;
  --ink: light-dark(#1b1b1b, #ececec); --soft: light-dark(#666, #a5a5a5);
  --paper: light-dark(#fff, #16181c); }
body { font: 16px/1.6 system-ui, sans-serif; color: var(--ink); margin: 2rem auto;
  background: var(--paper); max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin-top: 2.5rem; }
p, caption, label, figcaption, .legend { color: var(--soft); font-size: .875rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font: 1rem/2 ui-monospace,
  monospace; border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem;
  margin-top: 1rem; }
.token { background: color-mix(in oklab, var(--tint, var(--hot)) calc(var(--share) *
  80%), transparent); border-radius: 3px; box-shadow: inset 0 -1px var(--line); }
.special { color: var(--soft); font-style: italic; }
body:has(#numbers:checked) .text { line-height: 2.9; }
body:has(#numbers:checked) .token { position: relative; display: inline-block;
  line-height: 1.5; min-width: 2.2em; vertical-align: top; margin-bottom: 1.1em; }
body:has(#numbers:checked) .token::after { content: attr(data-number); left: 0;
  position: absolute; top: 100%; font: .65rem/1.3 system-ui, sans-serif;
  color: var(--soft); white-space: nowrap; }
.legend { display: flex; align-items: center; gap: .6rem; flex-wrap: wrap; }
.bar { width: 10rem; height: .8rem; border-radius: 3px; border: 1px solid var(--line);
  background: linear-gradient(to right in oklab, var(--from), var(--to)); }
table { border-collapse: collapse; font-size: .875rem; margin-top: 1rem; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); font-weight: normal; }
th { color: var(--soft); } td.number { text-align: right; }
td code { white-space: pre-wrap; overflow-wrap: anywhere; }
body:has(.maps) { max-width: none; }
.maps { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } svg { display: block; max-width: 100%; height: auto; }
svg text { font: 9px ui-monospace, monospace; fill: var(--ink); white-space: pre; }
svg image { image-rendering: pixelated; }
svg rect { fill: none; stroke: var(--line); }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
_NUMBERS = '<label><input type="checkbox" id="numbers"{on}> numbers</label>'
_SPECIALS = frozenset({"<pad>", "<unk>", "<s>", "</s>"})
# Control characters have pictures of their own in Unicode.
_PICTURES = {code: chr(0x2400 + code) for code in range(32)} | {
    0x7F: "\N{SYMBOL FOR DELETE}",
    ord("\n"): "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n",
    ord("\t"): "\N{RIGHTWARDS ARROW}\t",
}


class Scored(Protocol):
    """The tokens of a text, each with its log-probability in nats.

    `models.attribution.Surprisal` is one, and what a client's `token_scores` gives.
    """

    @property
    def tokens(self) -> Sequence[str]:
        """The tokens, as people read them."""

    @property
    def log_probabilities(self) -> Sequence[float]:
        """One for each token."""


class Page(NamedTuple):
    """A page in HTML; a notebook shows it."""

    html: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page to a file."""
        Path(path).write_text(self.html, encoding="utf-8")

    def _repr_html_(self) -> str:
        # In a frame, so that its style stays in it.
        source = html.escape(self.html)
        style = "width: 100%; height: 30rem; border: 0"
        return f'<iframe srcdoc="{source}" style="{style}"></iframe>'


def surprisal_page(texts: Sequence[Scored], title: str = "Surprisal") -> Page:
    """Texts in the colours of how unexpected each token is: -log2 p, in bits.

    Args:
        texts: what a model says of each; see `Scored`.
        title: of the page.
    """
    legend = (
        '<div class="legend"><span>0 bits, certain</span><span class="bar" style="'
        "--from: transparent; --to: color-mix(in oklab, var(--hot) 80%, transparent)"
        f'"></span><span>{FULL_BITS:g} bits and more, one in '
        f"{round(2**FULL_BITS):,}</span>{_NUMBERS.format(on='')}</div>"
    )
    introduction = (
        "<p>How unexpected each token was to the model after those before it: "
        "-log<sub>2</sub> of its probability.</p>"
    )
    sections = [_surprisal_section(text) for text in texts]
    return _page(title, [introduction, legend, *sections])


def attribution_page(attribution: Any) -> Page:
    """A text in the colours of what each token does to the probability of the next.

    Args:
        attribution: a `langzoo.models.explanation.attribution.Attribution`.
    """
    scores = [float(score) for score in attribution.scores]
    strongest = max(map(abs, scores), default=0.0) or 1.0
    tokens = [
        _token(
            token,
            abs(score) / strongest,
            f"{score:+.2f}",
            f"{score:+.3f} nats",
            "--cold" if score < 0 else "--hot",
        )
        for token, score in zip(attribution.tokens, scores, strict=True)
    ]
    target = "".join(map(_shown, attribution.target))
    method = attribution.method.replace("_", " ")
    facts = (
        f"<p>What each token does to log p of <code>{target}</code>, by {method}.</p>"
        f"<p>log p = {attribution.output:.3f} nats ({_percent(attribution.output)}); "
        f"with every token unknown {attribution.baseline:.3f} nats "
        f"({_percent(attribution.baseline)}). The attributions sum to "
        f"{sum(scores):+.3f} of the difference of "
        f"{attribution.output - attribution.baseline:+.3f} nats.</p>"
    )
    legend = (
        f'<div class="legend"><span>-{strongest:.2f} nats, less likely</span>'
        '<span class="bar" style="'
        "--from: color-mix(in oklab, var(--cold) 80%, transparent), transparent; "
        '--to: color-mix(in oklab, var(--hot) 80%, transparent)"></span>'
        f"<span>+{strongest:.2f} nats, more likely</span>"
        f"{_NUMBERS.format(on=' checked')}</div>"
    )
    text = f'<div class="text">{"".join(tokens)}</div>'
    return _page("Attribution", [facts, legend, text])


def attention_page(maps: Any) -> Page:
    """The maps of every layer and head, a row for each position that looks.

    Args:
        maps: a `langzoo.models.explanation.attribution.AttentionMaps`.
    """
    introduction = (
        "<p>Each row is a token that looks, each column one that is looked at; the "
        "stronger the colour, the more of its weight, by the square root. A row's "
        "weights sum to one.</p>"
    )
    text = "".join(map(_shown, maps.tokens))
    sections = [introduction, f'<div class="text">{text}</div>']
    for layer, heads in enumerate(maps.weights):
        figures = "".join(
            f"<figure>{_map(weights, maps.tokens)}<figcaption>layer {layer}, head "
            f"{head}</figcaption></figure>"
            for head, weights in enumerate(heads)
        )
        sections.append(f'<h2>Layer {layer}</h2><div class="maps">{figures}</div>')
    return _page("Attention", sections)


def _page(title: str, sections: Iterable[str]) -> Page:
    body = "\n".join(sections)
    return Page(_PAGE.format(title=html.escape(title), style=_STYLE, body=body))


def _surprisal_section(text: Scored) -> str:
    bits = [0.0 - score / math.log(2) for score in text.log_probabilities]
    tokens = [
        _token(
            token,
            min(max(value, 0) / FULL_BITS, 1.0),
            f"{value:.1f}",
            f"{value:.2f} bits, {_percent(score)}",
        )
        for token, value, score in zip(
            text.tokens, bits, text.log_probabilities, strict=True
        )
    ]
    total, count = math.fsum(bits), len(bits)
    summary = f"{total:.1f} bits over {count} tokens"
    if count:
        mean = total / count
        summary += f", {mean:.2f} a token: perplexity {_power(mean)}"
    return (
        f'<h2>{summary}</h2><div class="text">{"".join(tokens)}</div>'
        f"{_most_surprising(text.tokens, bits)}"
    )


def _most_surprising(tokens: Sequence[str], bits: Sequence[float]) -> str:
    order = sorted(range(len(bits)), key=lambda place: -bits[place])[:_LISTED]
    rows = "".join(
        f'<tr><td class="number">{bits[place]:.1f}</td>'
        f"<td><code>{_shown(tokens[place])}</code></td><td><code>"
        f"{_shown(''.join(tokens[:place])[-_CONTEXT:])}</code></td></tr>"
        for place in order
    )
    return (
        f"<table><caption>The most surprising tokens</caption><tr><th>bits</th>"
        f"<th>token</th><th>after</th></tr>{rows}</table>"
    )


def _token(
    token: str, share: float, number: str, tooltip: str, tint: str = "--hot"
) -> str:
    special = " special" if token in _SPECIALS else ""
    shown = _shown(token)
    # A line break at its end stands behind the box, so that it breaks the line.
    breaks = "\n" * (len(shown) - len(shown.rstrip("\n")))
    return (
        f'<span class="token{special}" style="--share: {share:.3f}; --tint: '
        f'var({tint})" data-number="{number}" title="{tooltip}">'
        f"{shown.rstrip(chr(10))}</span>{breaks}"
    )


def _map(weights: Any, tokens: Sequence[str]) -> str:
    """An SVG of weights `[t, t]`, with the tokens beside and above."""
    count = len(tokens)
    cell = min(_CELL, _LARGEST / count)
    side = cell * count
    labels = [_shown(_short(token)) for token in tokens] if cell >= _CELL else []
    margin = 60 if labels else 4
    rows = "".join(
        f'<text x="{margin - 4}" y="{margin + (i + 0.75) * cell:.1f}" '
        f'text-anchor="end">{label}</text>'
        for i, label in enumerate(labels)
    )
    columns = "".join(
        f'<text transform="translate({margin + (i + 0.75) * cell:.1f} {margin - 4}) '
        f'rotate(-90)">{label}</text>'
        for i, label in enumerate(labels)
    )
    size = margin + side + 1
    square = f'x="{margin}" y="{margin}" width="{side:g}" height="{side:g}"'
    return (
        f'<svg width="{size:g}" height="{size:g}" viewBox="0 0 {size:g} {size:g}" '
        f'role="img">{rows}{columns}<image {square} href="{_picture(weights)}"/>'
        f"<rect {square}/></svg>"
    )


def _picture(weights: Any) -> str:
    """A PNG as opaque as the square roots of the weights `[t, t]`, as a data URI.

    In a long text a position's weight is spread thin; without the root it would be
    invisible.
    """
    import numpy as np
    import tensorflow as tf

    colour = np.array([0xF4, 0x77, 0x2E], np.uint8)
    pixels = np.empty((*weights.shape, 4), np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = np.rint(np.sqrt(np.clip(weights, 0, 1)) * 255)
    png = tf.io.encode_png(pixels).numpy()
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _shown(text: str) -> str:
    return html.escape(text.translate(_PICTURES))


def _short(token: str) -> str:
    token = token.replace("\n", " ")
    return token if len(token) <= 9 else f"{token[:8]}\N{HORIZONTAL ELLIPSIS}"


def _percent(log_probability: float) -> str:
    return f"p = {math.exp(log_probability):.3g}"


def _power(bits: float) -> str:
    return f"{2**bits:,.1f}" if bits < 64 else "beyond 2^64"
