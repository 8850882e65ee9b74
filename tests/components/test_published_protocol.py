"""Splits and tokens as published perplexities count them, on files like PTB's.

The configuration is that of docs/corpus.md.
"""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import unchecked
from langzoo.components.documents import split
from langzoo.models.tokenizers.words import (
    count_words,
    spaced_words_of,
    word_tokenizer,
)
from langzoo.models.zoo import build_causal_lm
from langzoo.pipelines.configuration.loading import load
from langzoo.serving.in_process import ExportedModel

SPECIALS = 4
PAGE = Path(__file__).parents[2] / "docs" / "corpus.md"


def lines_of(words, seed):
    """Lines as Penn Treebank has them: a space before and behind each word."""
    chance = random.Random(seed)
    lines = []
    while words:
        length = chance.randrange(3, 20)
        lines.append(f" {' '.join(words[:length])} \n")
        words = words[length:]
    return lines


@pytest.fixture(scope="module")
def files():
    """10,000 kinds of tokens: 9,998 words (one is `N`), `<unk>` and a line's end."""
    chance = random.Random(0)
    words = ["N", *(f"w{number}" for number in range(9_997))]
    train = [*words, *chance.choices([*words[:50], "<unk>"], k=3_000)]
    chance.shuffle(train)
    drawn = {"train": train}
    for name in ("valid", "test"):
        drawn[name] = chance.choices([*words[:50], "<unk>", "<unk>"], k=300)
    return {name: lines_of(each, name) for name, each in drawn.items()}


@pytest.fixture
def splits(files, tmp_path, monkeypatch, run_example_gen):
    """The configuration, and the texts of each split as an ingestion has them."""
    monkeypatch.chdir(tmp_path)
    for name, lines in files.items():
        Path(f"ptb.{name}.txt").write_text("".join(lines))
    (block,) = re.findall(r"```yaml\n(name: ptb\n.*?)```", PAGE.read_text(), re.S)
    Path("ptb.yaml").write_text(block)
    config = load(Path("ptb.yaml"))
    examples = run_example_gen(config.corpus.all_sources)
    texts = {name: [*split([examples], name)] for name in ("train", "eval", "test")}
    return config, texts


def test_a_split_is_one_text_and_its_tokens_are_words_and_ends_of_lines(
    files, splits, tmp_path
):
    config, texts = splits
    assert {name: len(each) for name, each in texts.items()} == dict.fromkeys(texts, 1)
    listed = count_words(texts["train"], spaced_words_of)
    size = config.tokenizer.vocabulary_size
    tokenizer = word_tokenizer(
        [word for word, _ in listed.most_common(size - SPECIALS)], spaced=True
    )
    assert tokenizer.vocabulary_size() == size == 10_000 + SPECIALS - 1
    for name, of in (("train", "train"), ("valid", "eval"), ("test", "test")):
        words = "".join(files[name]).split()
        ids = np.array(tokenizer(texts[of])[0])
        assert np.count_nonzero(ids == tokenizer.unk_token_id) == words.count("<unk>")
        # What ends the text stands for the end of the last line.
        assert len(ids) + 1 == len(words) + len(files[name])
    of_rnn, of_window = config.serving.score_stride, 8
    for family, stride in (("lstm", of_rnn), ("transformer", of_window)):
        model = build_causal_lm(
            family,
            tokenizer,
            config.model.context_length,
            num_layers=1,
            hidden_dim=8,
            **({"num_heads": 2} if family == "transformer" else {}),
        )
        unchecked.export(model, str(tmp_path / family), ["score"], stride=stride)
        with ExportedModel(str(tmp_path / family)) as exported:
            (score,) = exported.score(texts["test"])
        counted = len("".join(files["test"]).split()) + len(files["test"])
        assert score.tokens == counted
        nats = -float(np.sum(model.score(texts["test"][0], stride=stride)))
        assert score.perplexity == pytest.approx(math.exp(nats / counted), rel=1e-4)
        if family == "lstm":
            whole = build_causal_lm(
                family, tokenizer, counted + 1, num_layers=1, hidden_dim=8
            )
            whole.backbone.set_weights(model.backbone.get_weights())
            at_once = -float(np.sum(whole.score(texts["test"][0])))
            assert nats == pytest.approx(at_once, rel=1e-5)
