"""Kneser-Ney smoothing, against arithmetic on paper and a plain implementation."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter, defaultdict
from pydoc_data.topics import topics

import keras
import langzoo  # noqa: F401  # sets the environment before TensorFlow is imported
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from langzoo import models
from langzoo.models.families.ngram import causal_lm, counting, kneser_ney
from langzoo.models.families.ngram.kneser_ney import (
    KneserNey,
    _discounts,
    estimate_kneser_ney,
)

PAD, UNK, START, END, A, B = range(6)
# <s> a b </s>, <s> a a b </s>
TWO_DOCUMENTS = [[A, B], [A, A, B]]
PREDICTABLE = [UNK, END, A, B]
ENGLISH = [topics[name] for name in sorted(topics)]


class Reference:
    """Chen and Goodman's formulas as they stand, with dictionaries and loops.

    A document is `<s> tokens </s>`, and nothing crosses its ends. The counts below the
    highest order are KenLM's "adjusted counts": n-grams that begin with `<s>` keep
    their occurrences.
    """

    def __init__(self, documents: list[list[int]], order: int, predictable: list[int]):
        self.order, self.predictable = order, predictable
        occurrences: Counter = Counter()
        for document in documents:
            framed = (START, *document, END)
            for end in range(2, len(framed) + 1):
                for length in range(1, min(order, end) + 1):
                    occurrences[framed[end - length : end]] += 1
        before = defaultdict(set)
        for words in occurrences:
            before[words[1:]].add(words[0])
        self.counts: dict[tuple, int] = {}
        for words, number in occurrences.items():
            whole = len(words) == order or words[0] == START
            self.counts[words] = number if whole else len(before[words])
        self.discounts = {
            length: self._discounts(
                [c for words, c in self.counts.items() if len(words) == length]
            )
            for length in range(1, order + 1)
        }

    @staticmethod
    def _discounts(counts: list[int]) -> list[float]:
        n = [counts.count(i) for i in range(5)]
        if 0 in n[1:]:
            return [0, 0.5, 1, 1.5]
        y = n[1] / (n[1] + 2 * n[2])
        found = [0] + [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
        fits = all(0 < found[i] <= i for i in (1, 2, 3))
        return found if fits else [0, 0.5, 1, 1.5]

    def probability(self, token: int, context: tuple) -> float:
        context = context[max(len(context) - self.order + 1, 0) :]
        following = [c for words, c in self.counts.items() if words[:-1] == context]
        lower = (
            self.probability(token, context[1:])
            if context
            else (token in self.predictable) / len(self.predictable)
        )
        if not following:
            return lower
        discounts = self.discounts[len(context) + 1]
        held_back = sum(discounts[min(c, 3)] for c in following) / sum(following)
        count = self.counts.get((*context, token), 0)
        return (count - discounts[min(count, 3)]) / sum(following) + held_back * lower


def tables_of(documents, order, vocabulary_size=6):
    framed = [[START, *document, END] for document in documents]
    return estimate_kneser_ney(
        np.concatenate(framed),
        np.array([len(document) for document in framed]),
        vocabulary_size=vocabulary_size,
        order=order,
        unpredictable={PAD, START},
    )


def lookup(documents, order, vocabulary_size=6):
    """Next-token distributions of documents' model, as a function of a context."""
    backbone = models.NgramBackbone(vocabulary_size, order=order)
    backbone.token_embedding.tables, _ = tables_of(documents, order, vocabulary_size)

    def distribution(context):
        token_ids = np.array([context], "int32")
        mask = np.ones_like(token_ids, bool)
        outputs = backbone({"token_ids": token_ids, "padding_mask": mask})
        return np.exp(outputs[0, -1].numpy())

    return distribution


@pytest.fixture
def counted_in_parts(monkeypatch):
    """As texts of millions of tokens are, with parts of 97."""
    count = functools.partial(counting.count_in_parts, size=97)
    monkeypatch.setattr(kneser_ney, "count_in_parts", count)
    monkeypatch.setattr(kneser_ney, "PART", 0)


def build(order=4, context_length=64, **options):
    return models.build_causal_lm(
        "ngram", models.ByteTokenizer(), context_length, order=order, **options
    )


@pytest.fixture(scope="module")
def fitted():
    model = build()
    model.fit(ENGLISH[5:])
    return model


# --- The numbers ---


def test_a_bigram_model_is_the_one_computed_by_hand():
    """All discounts are 0.5, 1 and 1.5, as both orders lack a count of counts.

    Unigrams count the tokens seen before: a after {<s>, a} is 2, b after {a} is 1, </s>
    after {b} is 1; in all 4. Held back: (1 + 0.5 + 0.5) / 4 = 0.5, and a quarter of
    that, 0.125, goes to each of <unk>, </s>, a, b:
        p(a) = (2 - 1) / 4 + 0.125 = 0.375
        p(b) = p(</s>) = (1 - 0.5) / 4 + 0.125 = 0.25
        p(<unk>) = 0.125
    Bigrams count occurrences. After a: b twice, a once; in all 3; held back
    (1 + 0.5) / 3 = 0.5:
        p(b | a) = (2 - 1) / 3 + 0.5 * 0.25
        p(a | a) = (1 - 0.5) / 3 + 0.5 * 0.375
        p(</s> | a) = 0.5 * 0.25, p(<unk> | a) = 0.5 * 0.125
    After <s>: a twice, held back 1 / 2:
        p(a | <s>) = (2 - 1) / 2 + 0.5 * 0.375
    """
    distribution = lookup(TWO_DOCUMENTS, order=2)
    after_a = [0, 0.0625, 0, 0.125, 0.5 / 3 + 0.1875, 1 / 3 + 0.125]
    np.testing.assert_allclose(distribution([A]), after_a, atol=1e-6)
    after_start = [0, 0.0625, 0, 0.125, 0.6875, 0.125]
    np.testing.assert_allclose(distribution([START]), after_start, atol=1e-6)
    # </s> is no context: what is left are the unigrams.
    unigrams = [0, 0.125, 0, 0.25, 0.375, 0.25]
    np.testing.assert_allclose(distribution([END]), unigrams, atol=1e-6)


def test_discounts_are_those_of_chen_and_goodman():
    """n1..n4 = 4, 2, 1, 1: Y = 4 / (4 + 2 * 2) = 0.5.

    D1 = 1 - 2 Y n2/n1 = 0.5, D2 = 2 - 3 Y n3/n2 = 1.25, D3+ = 3 - 4 Y n4/n3 = 1.
    """
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4, 17])
    np.testing.assert_allclose(_discounts(counts), [0.5, 1.25, 1.0])


@pytest.mark.parametrize(
    "counts",
    [
        [1, 1, 2, 3],  # none of four
        [7, 9],
        [1, 2, 2, 3, 4],  # D1 = 1 - 2/5 * 2 > 0, D2 = 2 - 3/5 * 1/2, D3 = 3 - 4/5
        [1, 2, 3, 3, 3, 3, 3, 3, 4],  # D2 = 2 - 3/3 * 6 < 0
    ],
)
def test_discounts_out_of_range_fall_back(counts):
    found = _discounts(np.array(counts))
    expected = Reference._discounts(counts)[1:]
    np.testing.assert_allclose(found, expected)
    assert (found > 0).all()
    assert (found <= [1, 2, 3]).all()


def corpus_of_words():
    """Real text whose counts give real discounts, as ids of its commonest words."""
    words = " ".join(ENGLISH[:40]).split()
    common = [word for word, _ in Counter(words).most_common(60)]
    ids = {word: 4 + index for index, word in enumerate(common)}
    lines = [line.split() for text in ENGLISH[:40] for line in text.splitlines()]
    documents = [[ids[w] for w in line if w in ids] for line in lines]
    return [document for document in documents if document][:300]


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_probabilities_equal_those_of_a_plain_implementation(order):
    documents = corpus_of_words()
    size = 64
    reference = Reference(documents, order, [UNK, END, *range(4, size)])
    if order > 1:  # otherwise this would test the fallback only
        assert reference.discounts[2] != [0, 0.5, 1, 1.5]
    distribution = lookup(documents, order, size)
    contexts = [(START, *document)[:7] for document in documents[:12]]
    contexts += [(4, 5, 4, 63, 62), (PAD, 4), (63, UNK), (END, START, 5, 6)]
    for context in contexts:
        expected = [reference.probability(token, context) for token in range(size)]
        np.testing.assert_allclose(distribution(context), expected, atol=2e-6)


def test_every_context_of_a_small_vocabulary_has_its_own_distribution():
    """All tokens are below six and five is used, so that keys lie densely."""
    documents = [[B, A, B], [A, B, B, A]]
    reference = Reference(documents, 3, PREDICTABLE)
    distribution = lookup(documents, order=3)
    for length in (1, 2, 3):
        for context in itertools.product(range(6), repeat=length):
            expected = [reference.probability(token, context) for token in range(6)]
            np.testing.assert_allclose(distribution(context), expected, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(3, 9), max_size=12), min_size=1, max_size=8),
    st.integers(1, 5),
    st.lists(st.integers(0, 10), min_size=1, max_size=9),
)
def test_probabilities_sum_to_one_and_are_positive_after_any_context(
    documents, order, context
):
    tables, _ = tables_of(documents, order, vocabulary_size=11)
    layer = KneserNey(11, order)
    layer.build(None)
    layer.tables = tables
    probabilities = np.exp(layer(np.array([context], "int32"))[0].numpy())
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    never = [PAD, START]
    assert (probabilities[:, never] < 1e-37).all()
    assert (np.delete(probabilities, never, axis=1) > 1e-9).all()


def test_seen_unseen_and_partly_seen_contexts_sum_to_one(fitted):
    texts = ["The import statement", "\x00\x01\x02\x03", "\x07\x07 the", "", "zqx imp"]
    logits = fitted(fitted.preprocessor.generate_preprocess(texts, sequence_length=24))
    sums = tf.reduce_sum(tf.exp(tf.cast(logits, tf.float64)), axis=-1)
    np.testing.assert_allclose(sums, 1, atol=1e-5)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_the_loss_of_fit_is_the_mean_score_of_the_text(order):
    """The loss comes from the counts alone, the scores from looking tokens up."""
    model = build(order)
    loss = model.fit(ENGLISH[:20]).history["loss"][0]
    scores = model.score(ENGLISH[:20])
    assert loss == pytest.approx(-np.mean(scores.flat_values), rel=1e-5)


def test_a_higher_order_predicts_unseen_text_better():
    losses = []
    for order in (1, 2, 3, 4):
        model = build(order)
        model.fit(ENGLISH[5:])
        losses.append(-np.mean(model.score(ENGLISH[:5]).flat_values))
    assert losses == sorted(losses, reverse=True)
    assert math.exp(losses[2]) < 0.5 * math.exp(losses[0])


# --- What it learns from ---


def test_strings_datasets_and_ids_teach_the_same():
    texts = ENGLISH[:3]
    tokenizer = models.ByteTokenizer()
    strings = tf.data.Dataset.from_tensor_slices(texts)
    ids = [np.array(document) for document in tokenizer(texts)]
    sources = [
        texts,
        iter(texts),
        np.array(texts),
        tf.constant(texts),
        strings,
        strings.batch(2),
        ids,
        (document for document in ids),
        tf.ragged.constant([list(document) for document in ids]),
        tf.data.Dataset.from_generator(
            lambda: iter(ids), output_signature=tf.TensorSpec([None], tf.int32)
        ),
    ]
    expected = build(3)
    expected.fit(texts)
    for source in sources:
        model = build(3)
        model.fit(source)
        for table, other in zip(
            model.backbone.token_embedding.tables,
            expected.backbone.token_embedding.tables,
            strict=True,
        ):
            np.testing.assert_array_equal(table, other)


def test_windows_teach_the_same_as_their_texts():
    texts = [text[:50] for text in ENGLISH[:3]]
    expected = build(3)
    expected.fit(texts)
    x, y, weight = expected.preprocessor(texts)
    model = build(3)
    model.fit(x, y, sample_weight=weight)
    dataset = tf.data.Dataset.from_tensor_slices((x, y, weight)).batch(2)
    split = build(3)
    split.preprocessor = None
    split.fit(dataset)
    inputs = expected.preprocessor.generate_preprocess(texts)
    np.testing.assert_array_equal(model(inputs), expected(inputs))
    # Without the tokenizer it cannot know that <s> and <pad> are never predicted: its
    # unigrams are mixed with a uniform distribution over two more.
    wider = np.array(split(inputs))
    fewer, never = np.array(expected(inputs)) - wider, [START, PAD]
    others = np.delete(fewer, never, axis=-1)
    size = expected.backbone.vocabulary_size
    assert -1e-5 < others.min() < 1e-5
    np.testing.assert_allclose(others.max(), np.log(size / (size - 2)), atol=1e-5)
    assert wider[..., never].min() > -20
    assert fewer[..., never].max() < -60


def test_a_window_over_two_documents_is_cut_between_them():
    model = build(3)
    row = [START, 70, END, START, 71, END, PAD]
    x = {"token_ids": [row[:-1]], "padding_mask": [[True] * 6]}
    weights = [[1.0, 1.0, 0.0, 1.0, 1.0, 0.0]]
    model.fit(x, [row[1:]], sample_weight=weights)
    expected = build(3)
    expected.fit([[70], [71]])
    for table, other in zip(
        model.backbone.token_embedding.tables,
        expected.backbone.token_embedding.tables,
        strict=True,
    ):
        np.testing.assert_array_equal(table, other)


def test_fitting_again_forgets_what_was_learned_and_traced():
    model = build(5)
    model.compile(sampler="greedy")
    model.fit(["aaaaaaaaaaaaaaaa"] * 3)
    assert model.generate("aa", max_length=8) == "aaaaaaa"
    model.predict(["aa"], verbose=0)
    model.fit(["babababababababa"] * 3)
    assert model.generate("ba", max_length=8) == "bababab"
    likely = model.predict(["ba"], verbose=0)[0, 2].argmax()
    assert likely == ord("b") + 4


def test_history_and_callbacks_see_one_epoch():
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((epoch, sorted(logs)))
    )
    history = build(3).fit(
        ENGLISH[:5],
        batch_size=2,
        epochs=3,
        callbacks=[callback],
        validation_data=(ENGLISH[5:7],),
    )
    assert history.history["val_loss"][0] > 0
    assert seen == [(0, ["loss", "val_loss", "val_sparse_categorical_accuracy"])]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "There must be a document"),
        ("text", "Give a list of strings"),
        ([[4, 300]], "must be in range"),
        ([[[4, 5]]], "vector of integers"),
        ([[0.5]], "vector of integers"),
    ],
)
def test_what_cannot_be_learned_from_is_an_error(texts, message):
    with pytest.raises(ValueError, match=message):
        build().fit(texts)


def test_an_order_below_one_is_an_error():
    with pytest.raises(ValueError, match="order: 0 cannot be"):
        build(order=0)


def test_a_model_that_has_seen_nothing_is_uniform():
    scores = build().score(["ab", ""])
    np.testing.assert_allclose(scores.flat_values, -math.log(260), rtol=1e-6)


# --- What it gives ---


def test_scores_of_texts_are_those_of_the_logits(fitted):
    texts = ["The import statement", "", "naïve €"]
    scores = fitted.score(texts)
    for text, row in zip(texts, scores, strict=True):
        document = [START, *fitted.preprocessor.tokenizer([text])[0], END]
        inputs = np.array([document[:-1]], "int32")
        logits = fitted({"token_ids": inputs, "padding_mask": inputs > 0})[0]
        expected = logits.numpy()[np.arange(len(document) - 1), document[1:]]
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_scores_are_those_of_the_last_fit():
    model, same = build(), build()
    for text in ("abab", "baba"):  # with tables of the same sizes
        model.fit([text])
        scores = model.score(["ab"])
    same.fit(["baba"])
    np.testing.assert_array_equal(scores.flat_values, same.score(["ab"]).flat_values)
    assert scores[0, 0] < model.score(["ba"])[0, 0]


def test_losses_of_ids_are_those_of_the_logits(fitted):
    features = fitted.preprocessor.generate_preprocess(ENGLISH[:2])
    token_ids = features["token_ids"]
    inputs, targets = token_ids[:, :-1], token_ids[:, 1:]
    losses = fitted.score(inputs, None, "loss", None, targets)
    expected = models.CausalLM.score(fitted, inputs, None, "loss", None, targets)
    assert losses.shape == (2, 63)
    np.testing.assert_allclose(losses, expected, atol=1e-5)


@pytest.mark.parametrize("order", [1, 3])
def test_an_empty_batch_has_no_logits(order):
    model = build(order)
    model.fit(["text"])
    empty = tf.zeros([0, 5], tf.int32)
    inputs = {"token_ids": empty, "padding_mask": tf.zeros([0, 5], tf.bool)}
    assert model.backbone(inputs).shape == (0, 5, 260)
    assert model.token_log_probabilities(inputs, empty).shape == (0, 5)


def test_a_model_of_unigrams_keeps_the_contract_of_the_cache():
    model = build(order=1)
    model.compile(sampler="greedy")
    model.fit(["the eel"])
    assert model.generate("x", max_length=6, stop_token_ids=None).startswith("xe")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_half_precision_stays_near(fitted, policy):
    model = build(dtype=policy)
    model.fit(ENGLISH[5:])
    inputs = fitted.preprocessor.generate_preprocess(ENGLISH[:2])
    logits = model(inputs)
    assert logits.dtype == tf.float32
    likely = fitted(inputs) > -10
    np.testing.assert_allclose(
        logits[likely], fitted(inputs)[likely], rtol=0.05, atol=0.02
    )


def test_a_preset_and_a_keras_file_give_the_same_scores(fitted, tmp_path):
    fitted.save_to_preset(str(tmp_path / "preset"))
    fitted.save(tmp_path / "model.keras")
    expected = fitted.score(ENGLISH[:3]).flat_values
    greedy = models.NgramCausalLM(fitted.backbone, fitted.preprocessor)
    greedy.compile(sampler="greedy")
    for loaded in (
        models.CausalLM.from_preset(str(tmp_path / "preset")),
        keras.saving.load_model(tmp_path / "model.keras"),
    ):
        assert type(loaded) is models.NgramCausalLM
        scores = loaded.score(ENGLISH[:3]).flat_values
        np.testing.assert_array_equal(scores, expected)
        loaded.compile(sampler="greedy")
        assert loaded.generate(["The "], max_length=12) == greedy.generate(
            ["The "], max_length=12
        )


# --- Memory ---


def random_text(vocabulary_size=40):
    generator = np.random.default_rng(0)
    lengths = generator.integers(0, 30, 400)
    ids = generator.zipf(1.4, lengths.sum()) % vocabulary_size
    return {"ids": ids, "lengths": lengths, "vocabulary_size": vocabulary_size}


def test_what_is_counted_in_parts_is_what_is_counted_at_once(request):
    expected, expected_loss = estimate_kneser_ney(**random_text(), order=4)
    request.getfixturevalue("counted_in_parts")
    tables, loss = estimate_kneser_ney(**random_text(), order=4)
    for one, other in zip(tables, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert loss == pytest.approx(expected_loss)


def test_no_more_ngrams_are_held_than_may_be_and_they_are_the_frequent_ones(
    counted_in_parts,
):
    text, order, most = random_text(), 4, 300
    whole, _ = estimate_kneser_ney(**text, order=order)
    tables, _ = estimate_kneser_ney(**text, order=order, most=most)
    bound = 1 + (order - 1) * most
    assert most < len(tables.ngram_keys) <= bound < len(whole.ngram_keys)
    assert len(tables.context_keys) <= bound
    tokens = {}
    for kept in (tables, whole):
        layer = kneser_ney.KneserNey(text["vocabulary_size"], order)
        layer.build(None)
        layer.tables = kept
        ids = text["ids"][None, :500].astype("int32")
        powers = np.exp(layer(ids)[0])
        np.testing.assert_allclose(powers.sum(axis=-1), 1, atol=1e-5)
        tokens[len(kept.ngram_keys)] = powers[np.arange(499), ids[0, 1:]]
    fewer, all_of_them = tokens.values()
    uniform = np.log(text["vocabulary_size"])
    assert -np.log(fewer).mean() < 0.8 * uniform
    assert -np.log(all_of_them).mean() < -np.log(fewer).mean()


def test_a_model_holds_no_more_than_its_setting(counted_in_parts):
    texts = ENGLISH[:3]
    few, many = build(order=5, max_ngrams=1000), build(order=5)
    for model in (few, many):
        model.fit(texts)
    assert few.count_params() < many.count_params() / 2
    assert few.backbone.get_config()["max_ngrams"] == 1000
    assert np.isfinite(few.score("12121212").numpy()).all()


def test_documents_are_tokenized_together_by_their_size(monkeypatch):
    monkeypatch.setattr(causal_lm, "_CHUNK", 10)
    chunks = [list(map(len, chunk)) for chunk in causal_lm._chunks(["a" * 6] * 3)]
    assert chunks == [[6], [6], [6]]
    sizes = [[4, 4], [20], [1, 9], [np.size([1] * 3)]]
    items = ["abcd", b"abcd", "a" * 20, "a", [1] * 9, np.ones(3, int)]
    assert [[*map(len, chunk)] for chunk in causal_lm._chunks(items)] == sizes
