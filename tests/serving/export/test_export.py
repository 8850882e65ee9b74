"""The exported SavedModel against independent computations from the model's logits."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import langzoo
import numpy as np
import pytest
import tensorflow as tf
import tokenizers
import unchecked
from hypothesis import given, settings
from hypothesis import strategies as st
from langzoo.models.tasks.adaptation.settings import NeuralCache
from langzoo.models.tasks.scoring import token_log_probabilities
from langzoo.models.tokenizers.byte import ByteTokenizer
from langzoo.models.tokenizers.sentence_piece import train_sentencepiece
from langzoo.models.zoo import build_causal_lm
from langzoo.serving.export import contract
from langzoo.serving.export.checks import example_of
from langzoo.serving.export.saved_model import (
    ExportError,
    export_causal_lm,
    read_metadata,
)
from langzoo.serving.export.vocabulary import display_strings
from langzoo.serving.server.servable import load_servable
from langzoo.serving.server.warmup import warm_up
from serialized import example
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis import prediction_log_pb2
from tiny_models import GRADIENTS, KINDS, TINY, VARIANTS, narrow

CONTEXT = 16
STRIDE = 5
CAP = 9
PAD, UNK, START, END = range(4)
BANNED = [PAD, UNK, START]
# Longer than the context, of characters of one to four bytes, with odd white space.
LONG = "Zwölf Boxkämpfer jagen\tViktor  quer über den großen Sylter Deich. 𝄞 €\n"
SHORT = ["", "a", "two words", "naïve €"]
SENTENCES = [LONG, "The quick brown fox jumps over the lazy dog.", *SHORT[1:]] * 3

Outputs = dict[str, np.ndarray]


def build(family: str, tokenizer: Any) -> Any:
    """A tiny model, of a variant, whose distributions are far from uniform."""
    sizes = narrow(family) if family in TINY else VARIANTS[family][1]
    family = VARIANTS[family][0]
    model = build_causal_lm(family, tokenizer, CONTEXT, **sizes)
    if family not in GRADIENTS:
        model.fit(SENTENCES)
    generator = np.random.default_rng(7)
    for variable in model.trainable_variables:
        value = generator.normal(scale=0.5, size=variable.shape)
        variable.assign(value.astype("float32"))
    return model


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


class Export:
    """A model, its export, and the export's signatures as plain functions."""

    def __init__(self, model: Any, directory: Any, checked: bool = True) -> None:
        self.model, self.directory = model, directory
        self.tokenizer = model.preprocessor.tokenizer
        export = export_causal_lm if checked else unchecked.export
        export(model, directory, stride=STRIDE, max_new_tokens=CAP)
        self._loaded = tf.saved_model.load(directory)
        windows = {
            "token_ids": tf.TensorSpec([None, CONTEXT], tf.int32),
            "padding_mask": tf.TensorSpec([None, CONTEXT], tf.bool),
        }
        # Of whole windows, for one graph; called without, most of the time is Python's.
        self.window_logits = tf.function(model, input_signature=[windows])

    def call(self, signature: str, **inputs: Any) -> Outputs:
        tensors = {
            key: value if tf.is_tensor(value) else tf.constant(value)
            for key, value in inputs.items()
        }
        outputs = self._loaded.signatures[signature](**tensors)
        return {key: value.numpy() for key, value in outputs.items()}

    def score(self, text: list[str]) -> Outputs:
        return self.call("score", text=tf.constant(text, tf.string))

    def generate(self, prompts: list[Any], **options: Any) -> Outputs:
        """Options are one value for all rows or a list with one a row."""
        return self._ask(contract.GENERATE, prompts, options)

    def beam_search(self, prompts: list[Any], **options: Any) -> Outputs:
        """Options are one value for all rows or a list with one a row."""
        return self._ask(contract.BEAM_SEARCH, prompts, options)

    def _ask(
        self, signature: contract.Signature, prompts: list[Any], given: dict[str, Any]
    ) -> Outputs:
        count = len(prompts)
        stops = given.pop("stop", [[]] * count)
        stops = [(list(strings) + [b""] * 4)[:4] for strings in stops]
        stop = tf.reshape(tf.constant(stops, tf.string), [count, 4])
        defaults = {key: one.default for key, one in signature.settings.items()}
        values = defaults | {"max_new_tokens": CAP} | given
        rows = {
            key: tf.constant(
                np.broadcast_to(value, [count]).tolist(), signature.inputs[key].dtype
            )
            for key, value in values.items()
            if key != "stop"
        }
        prompt = tf.constant(prompts, tf.string)
        return self.call(signature.name, prompt=prompt, stop=stop, **rows)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.tokenize(tf.constant([text]))[0].numpy().tolist()

    def log_probabilities(self, ids: list[int]) -> np.ndarray:
        """`[len(ids), vocabulary]` from the Keras model and NumPy alone."""
        return log_softmax(self.logits(ids))

    def logits(self, ids: list[int]) -> np.ndarray:
        """`[len(ids), vocabulary]` from the Keras model."""
        token_ids = np.full([1, CONTEXT], PAD, np.int32)
        token_ids[0, : len(ids)] = ids
        mask = np.arange(CONTEXT) < [[len(ids)]]
        logits = self.window_logits({"token_ids": token_ids, "padding_mask": mask})
        return np.asarray(logits, np.float64)[0, : len(ids)]

    def next_logits(self, ids: list[int]) -> np.ndarray:
        """Logits `[vocabulary]` of what may follow `ids`, -inf for what may not."""
        logits = self.logits(ids)[-1]
        logits[BANNED] = -np.inf
        return logits

    def next_distribution(self, ids: list[int]) -> np.ndarray:
        """Probabilities of what may follow `ids`, from the Keras model and NumPy."""
        probability = np.exp(self.log_probabilities(ids)[-1])
        probability[BANNED] = 0
        return probability / probability.sum()


# One tokenizer with ops of TensorFlow Text, and one without.
TOKENIZERS = dict.fromkeys(TINY, "bytes") | {"transformer": "sentencepiece"}


def make_tokenizer(kind: str) -> Any:
    if kind == "bytes":
        return ByteTokenizer()
    return train_sentencepiece(SENTENCES, vocabulary_size=320, model_type="bpe", seed=0)


@pytest.fixture(scope="module", params=KINDS)
def export(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Export:
    kind = TOKENIZERS.get(request.param, "bytes")
    model = build(request.param, make_tokenizer(kind))
    directory = str(tmp_path_factory.mktemp(request.param) / "1")
    # Of the others, other tests in here call what an export has in a TF1 session.
    return Export(model, directory, checked=request.param in KINDS[:2])


# For what no family has a part in: the first alone.
one_export = pytest.mark.parametrize("export", KINDS[:1], indirect=True)


def reference_scores(export: Export, text: str) -> list[float]:
    """The windows of the module docstring of `windows`, as a plain loop."""
    document = [START, *export.ids(text), END]
    scores: list[float] = []
    start = 0
    while len(scores) < len(document) - 1:
        window = document[start : start + CONTEXT + 1]
        logs = export.log_probabilities(window[:-1])
        for offset, target in enumerate(window[1:]):
            if start + offset == len(scores):
                scores.append(logs[offset, target])
        start += STRIDE
    return scores


def reference_tokens(
    export: Export,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    seed: int = 0,
) -> list[int]:
    """Sampling without a cache, a batch, or the graph: one row, written out."""
    draws = tf.random.stateless_uniform([CAP], [seed, 0], alg="philox").numpy()
    limit = min(max(max_new_tokens, 0), CAP)
    prompt_ids = [START, *export.ids(prompt)][-(CONTEXT - limit) :]
    new: list[int] = []
    for draw in draws[:limit]:
        logits = export.next_logits(prompt_ids + new)
        for token in set(prompt_ids + new) - {START}:
            factor = repetition_penalty if logits[token] < 0 else 1 / repetition_penalty
            logits[token] *= factor
            times = new.count(token)
            logits[token] -= presence_penalty * (times > 0) + frequency_penalty * times
        probability = np.exp(log_softmax(logits))
        order = np.argsort(-probability, kind="stable")[:256]
        sharp = probability[order] ** (1 / temperature) if temperature > 0 else [1.0]
        sharp = np.array(sharp[: top_k or None]) / np.sum(sharp[: top_k or None])
        kept = sharp[: 1 + int(np.sum(np.cumsum(sharp)[:-1] < top_p))]
        choice = int(np.searchsorted(np.cumsum(kept) / kept.sum(), draw, side="right"))
        new.append(int(order[choice]))
        if new[-1] == END:
            break
    return new


def signature_defs(directory: str) -> Any:
    with open(f"{directory}/saved_model.pb", "rb") as file:
        return SavedModel.FromString(file.read()).meta_graphs[0].signature_def


def test_signatures_have_the_names_dtypes_and_shapes_of_the_design(export):
    text, f32, i32, i64 = "string", "float32", "int32", "int64"
    counts = {"tokens": i64, "bytes": i64, "words": i64}
    score = {"nll": f32, "spelling_nll": f32} | counts
    evaluation = {"calibration": f32} | dict.fromkeys(
        ["characters", "unknown_tokens", "correct_at_1", "correct_at_5"], i64
    )
    penalties = ["repetition_penalty", "presence_penalty", "frequency_penalty"]
    knobs = dict.fromkeys(["temperature", "top_p", *penalties], f32) | dict.fromkeys(
        ["max_new_tokens", "top_k", "seed", "seed_offset", "alternatives"], i32
    )
    tokens = {"token": text, "log_probability": f32}
    top = {"top_token": text, "top_log_probability": f32}
    written = {"text": text, "new_tokens": i32, "finish_reason": text}
    expected = {
        "serving_default": ({"text": text}, {"token": text, "probability": f32}),
        "score": ({"text": text}, score),
        "token_scores": ({"text": text}, tokens | {"length": i32}),
        "cache_scores": (
            {"text": text, "cache_size": i32}
            | dict.fromkeys(["cache_theta", "cache_weight"], f32),
            tokens | {"length": i32},
        ),
        "token_alternatives": ({"text": text}, tokens | top | {"length": i32}),
        "embed": (
            {"text": text, "token_ids": text},
            {"embedding": f32, "tokens": i32},
        ),
        "id_alternatives": (
            {"token_ids": text, "alternatives": i32},
            {"log_probability": f32, "top_id": i32, "top_log_probability": f32}
            | {"length": i32},
        ),
        "generate": (
            {"prompt": text, "stop": text, "prompt_ids": text} | knobs,
            written | {"prompt_tokens": i32, "token_id": i32} | tokens | top,
        ),
        "beam_search": (
            {"prompt": text, "max_new_tokens": i32, "num_beams": i32}
            | {"length_penalty": f32, "stop": text, "prompt_ids": text},
            written | {"log_probability": f32, "score": f32},
        ),
        "tokenize": ({"text": text}, {"token_id": i32, "length": i32}),
        "detokenize": (
            {"token_ids": text},
            {"text": text, "token": text, "length": i32},
        ),
        "model_info": (
            {"text": text},
            {"special_token": text}
            | dict.fromkeys(
                ["context_length", "max_new_tokens", "vocabulary_size", "special_id"],
                i32,
            ),
        ),
        "evaluate": ({"examples": text}, score | evaluation),
    }

    def dtypes(tensors: Any) -> dict[str, str]:
        return {key: tf.as_dtype(info.dtype).name for key, info in tensors.items()}

    def shape(signature: str, key: str) -> list[int]:
        if signature == "serving_default" and key in ("token", "probability"):
            return [-1, 10]
        if signature == "beam_search" and key in expected[signature][1]:
            return [-1, 4]
        if key in top and signature != "id_alternatives":
            return [-1, -1, 5 if signature == "token_alternatives" else -1]
        if key in ("special_id", "special_token"):
            return [-1, 4]
        if key == "embedding":
            return [-1, export.model.backbone.output_shape[-1]]
        if key == "calibration":
            return [-1, 15, 3]
        is_row = key in (*tokens, *top, "token_id", "top_id")
        return {"stop": [-1, 4]}.get(key, [-1, -1] if is_row else [-1])

    definitions = signature_defs(export.directory)
    assert expected.keys() == definitions.keys() - {"__saved_model_init_op"}
    for name, (inputs, outputs) in expected.items():
        definition = definitions[name]
        assert dtypes(definition.inputs) == inputs
        assert dtypes(definition.outputs) == outputs
        for tensors in (definition.inputs, definition.outputs):
            for key, info in tensors.items():
                sizes = [dim.size for dim in info.tensor_shape.dim]
                assert sizes == shape(name, key), (name, key)


def test_the_signatures_are_those_of_the_contract(export):
    def told(infos: Any) -> dict[str, Any]:
        return {
            name: (
                tf.as_dtype(info.dtype).name,
                [dim.size for dim in info.tensor_shape.dim],
            )
            for name, info in infos.items()
        }

    # What the contract leaves open, and a model settles.
    settled = {"embedding": export.model.backbone.output_shape[-1]}

    def promised(tensors: Any) -> dict[str, Any]:
        return {
            name: (
                tensor.dtype,
                [-1, *(size or settled.get(name, -1) for size in tensor.shape)],
            )
            for name, tensor in tensors.items()
        }

    definitions = signature_defs(export.directory)
    for signature in contract.SIGNATURES["causal_lm"]:
        definition = definitions[signature.name]
        assert told(definition.inputs) == promised(signature.inputs)
        assert told(definition.outputs) == promised(signature.outputs)
        assert definition.defaults.keys() == signature.settings.keys()


def test_generate_carries_its_defaults(export):
    defaults = signature_defs(export.directory)["generate"].defaults
    values = {key: tf.make_ndarray(value).tolist() for key, value in defaults.items()}
    assert values == {
        "max_new_tokens": [CAP],  # 64, where the cap allows it
        "temperature": [1.0],
        "top_k": [0],
        "top_p": [1.0],
        "repetition_penalty": [1.0],
        "presence_penalty": [0.0],
        "frequency_penalty": [0.0],
        "stop": [[b""] * 4],
        "seed": [0],
        "seed_offset": [0],
        "alternatives": [5],
        "prompt_ids": [b""],
    }


def test_score_is_the_sum_over_the_models_own_logits(export):
    outputs = export.score(SHORT)
    for row, text in enumerate(SHORT):
        document = [START, *export.ids(text), END]
        logs = export.log_probabilities(document[:-1])
        expected = -sum(logs[at, token] for at, token in enumerate(document[1:]))
        assert outputs["nll"][row] == pytest.approx(expected, rel=1e-5)
        assert outputs["tokens"][row] == len(document) - 1


def test_score_counts_bytes_and_words_of_the_original_text(export):
    outputs = export.score(["", " \n", "naïve €\ttwo  three\n"])
    assert outputs["bytes"].tolist() == [0, 2, 22]
    assert outputs["words"].tolist() == [0, 0, 4]


def test_long_documents_are_scored_in_overlapping_windows(export):
    texts = [LONG, "short", LONG * 3, ""]
    outputs = export.call("token_scores", text=texts)
    for row, text in enumerate(texts):
        expected = reference_scores(export, text)
        scores = outputs["log_probability"][row]
        assert outputs["length"][row] == len(expected)
        np.testing.assert_allclose(
            scores[: len(expected)], expected, rtol=1e-4, atol=1e-4
        )
        assert not scores[len(expected) :].any()


def test_the_model_itself_gives_the_scores_of_its_export(export):
    texts = [*SHORT, LONG, LONG * 3]
    scores = export.model.score(texts, stride=STRIDE)
    outputs = export.call("token_scores", text=texts)
    np.testing.assert_array_equal(scores.row_lengths(), outputs["length"])
    np.testing.assert_allclose(
        scores.to_tensor(0.0), outputs["log_probability"], atol=1e-4
    )
    nll = -tf.reduce_sum(scores, axis=1)
    np.testing.assert_allclose(nll, export.score(texts)["nll"], rtol=1e-4)


@pytest.mark.parametrize("stride", [1, CONTEXT // 2, CONTEXT])
def test_any_stride_scores_every_token_once(export, stride):
    lengths = [1, CONTEXT - 1, CONTEXT, CONTEXT + 1, CONTEXT + stride + 1, 5 * CONTEXT]
    generator = np.random.default_rng(0)
    documents = tf.ragged.constant(
        [generator.integers(4, 260, length + 1).tolist() for length in lengths],
        dtype=tf.int32,
    )
    scores = token_log_probabilities(export.model, documents, stride=stride)
    assert scores.row_lengths().numpy().tolist() == lengths
    assert (scores.flat_values.numpy() < 0).all()


def test_more_windows_than_a_chunk_holds_change_nothing(export, monkeypatch):
    documents = tf.ragged.constant(
        [[START, *export.ids(text), END] for text in [LONG * 2, "", LONG]],
        dtype=tf.int32,
    )
    whole = token_log_probabilities(export.model, documents, stride=STRIDE)
    monkeypatch.setattr("langzoo.models.tasks.windows.CHUNK_POSITIONS", 3 * CONTEXT)
    chunked = token_log_probabilities(export.model, documents, stride=STRIDE)
    np.testing.assert_allclose(chunked.flat_values, whole.flat_values, rtol=1e-4)


def test_token_scores_add_up_to_the_score(export):
    texts = [*SHORT, LONG]
    sums = -export.call("token_scores", text=texts)["log_probability"].sum(axis=1)
    np.testing.assert_allclose(sums, export.score(texts)["nll"], rtol=1e-5)


def test_a_cache_is_that_of_the_model_whatever_the_other_rows_ask(export):
    texts, own = [*SHORT, LONG], NeuralCache(size=9, theta=2.0, weight=0.4)
    caches = [NeuralCache()] * len(SHORT) + [own]
    asked = {
        f"cache_{name}": [getattr(cache, name) for cache in caches] for name, _ in own
    }
    outputs = export.call("cache_scores", text=texts, **asked)
    for row, (text, cache) in enumerate(zip(texts, caches, strict=True)):
        expected = export.model.score(text, stride=STRIDE, adapt=cache)
        found = outputs["log_probability"][row, : outputs["length"][row]]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert not np.allclose(expected, export.model.score(LONG, stride=STRIDE))


def test_the_cache_of_an_export_is_by_default_the_one_that_is_stated(export):
    definition = signature_defs(export.directory)["cache_scores"]
    told = {name: tf.make_ndarray(value) for name, value in definition.defaults.items()}
    stated = {f"cache_{name}": value for name, value in NeuralCache()}
    assert {name: value.item() for name, value in told.items()} == pytest.approx(stated)


def test_display_tokens_are_the_text_and_always_utf8(export):
    texts = ["plain words", LONG]
    outputs = export.call("token_scores", text=texts)
    for row, text in enumerate(texts):
        tokens = outputs["token"][row, : outputs["length"][row]]
        pieces = [token.decode() for token in tokens]
        assert pieces[-1] == "</s>"
        ids = export.ids(text)
        assert pieces[:-1] == [display_strings(export.tokenizer)[i] for i in ids]
        assert all(piece == b"" for piece in outputs["token"][row, len(tokens) :])
    assert b"".join(outputs["token"][0]) == b"plain words</s>"


def test_a_byte_of_a_longer_character_is_displayed_in_hexadecimal():
    strings = display_strings(ByteTokenizer())
    assert strings[:4] == ["<pad>", "<unk>", "<s>", "</s>"]
    assert strings[4 + 0xE2] == "<0xE2>"
    assert strings[4 + ord("a")] == "a"


def test_a_score_does_not_depend_on_its_batch(export):
    alone = [export.score([text])["nll"][0] for text in [*SHORT, LONG]]
    together = export.score([*SHORT, LONG])["nll"]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_evaluate_scores_the_texts_of_examples(export):
    examples = [
        example(text=[LONG.encode()], id=[b"1"]),
        example(text=[b"two words"]),
        example(id=[b"without text"]),
        example(text=[]),
    ]
    evaluated = export.call("evaluate", examples=examples)
    scored = export.score([LONG, "two words", "", ""])
    for key, values in scored.items():
        np.testing.assert_allclose(evaluated[key], values, rtol=1e-6)


def test_a_thousand_documents_get_the_numbers_of_numpy_and_of_the_model(
    export, paragraphs, evaluation_by_numpy
):
    expected = evaluation_by_numpy(
        export.window_logits, export.tokenizer, CONTEXT, STRIDE
    )
    examples = [example_of(text) for text in paragraphs]
    evaluated = export.call("evaluate", examples=examples)
    scores = export.model.score(paragraphs, stride=STRIDE)
    assert len(paragraphs) == 1000
    for nll in (evaluated["nll"], -tf.reduce_sum(scores, axis=1)):
        np.testing.assert_allclose(nll, expected["nll"], rtol=1e-5, atol=1e-4)
    for key, values in expected.items():
        np.testing.assert_allclose(evaluated[key], values, rtol=1e-4, atol=1e-3)


def test_next_tokens_are_the_likeliest_of_the_models_distribution(export):
    prompts = ["", "two wor", LONG]
    outputs = export.call("serving_default", text=prompts)
    for row, prompt in enumerate(prompts):
        ids = [START, *export.ids(prompt)][-(CONTEXT - 1) :]
        probability = export.next_distribution(ids)
        best = np.argsort(-probability, kind="stable")[:10]
        np.testing.assert_allclose(
            outputs["probability"][row], probability[best], rtol=1e-4
        )
        names = [display_strings(export.tokenizer)[token] for token in best]
        assert [token.decode() for token in outputs["token"][row]] == names


PROMPTS = ["", "two", LONG, "The quick brown", "naïve", "a", LONG[:9], "Zwölf "]
OPTIONS: dict[str, list[Any]] = {
    "max_new_tokens": [CAP, 3, 4, 100, CAP, 0, 5, -1],
    "temperature": [1.0, 0.0, 0.7, 1.5, 4.0, 1.0, -1.0, 1.0],
    "top_k": [0, 0, 3, 40, 0, 0, 5, 0],
    "top_p": [1.0, 0.5, 1.0, 0.8, 0.9, 1.0, 1.0, 0.1],
    "seed": [0, 1, 2, 3, -4, 5, 6, 2**31 - 1],
}
PENALTIES: dict[str, list[Any]] = {
    "repetition_penalty": [1.0, 1.3, 3.0, 0.5, 1.0, 1.0, 2.0, 1.0],
    "presence_penalty": [0.0, 0.0, 1.5, -1.0, 2.0, 1.0, 0.0, 0.0],
    "frequency_penalty": [2.0, 0.0, 0.0, 0.7, -1.0, 1.0, 0.0, 0.0],
}


@pytest.mark.parametrize("options", [OPTIONS, OPTIONS | PENALTIES], ids=["", "lower"])
def test_generation_equals_sampling_written_out_row_by_row(
    export, options, reference_written
):
    """Prompts of unequal length, some beyond the context, each row its own settings."""
    outputs = export.generate(PROMPTS, **options)
    surface = export.tokenizer.token_bytes()
    names = display_strings(export.tokenizer)
    for row, prompt in enumerate(PROMPTS):
        settings_of_row = {key: value[row] for key, value in options.items()}
        new = reference_tokens(export, prompt, **settings_of_row)
        text, count = reference_written(new, surface, END, [])
        assert outputs["text"][row] == text
        assert outputs["new_tokens"][row] == count
        reason = "stop" if END in new else "length"
        assert outputs["finish_reason"][row].decode() == reason
        shown = [token.decode() for token in outputs["token"][row]]
        assert shown == [names[token] for token in new[:count]] + [""] * (
            len(shown) - count
        )


def test_generation_tells_the_models_own_log_probabilities(export):
    """Before penalties, temperature and cuts, with the likeliest at each place."""
    prompts, limits = ["two", "", LONG], [9, 4, 6]
    options = {"temperature": 2.0, "top_k": 9, "presence_penalty": 1.0}
    outputs = export.generate(prompts, max_new_tokens=limits, **options)
    names = display_strings(export.tokenizer)
    for row, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        read = min(len(export.ids(prompt)), CONTEXT - limit)
        assert outputs["prompt_tokens"][row] == read
        ids = [START, *export.ids(prompt)][-(CONTEXT - limit) :]
        new = reference_tokens(export, prompt, max_new_tokens=limit, **options)
        count = outputs["new_tokens"][row]
        for place, token in enumerate(new[:count]):
            logs = log_softmax(export.next_logits(ids))
            best = np.argsort(-logs, kind="stable")[:5]
            shown = [token.decode() for token in outputs["top_token"][row, place]]
            assert shown == [names[token] for token in best]
            np.testing.assert_allclose(
                outputs["top_log_probability"][row, place], logs[best], atol=1e-4
            )
            np.testing.assert_allclose(
                outputs["log_probability"][row, place], logs[token], atol=1e-4
            )
            ids.append(token)
        assert not outputs["log_probability"][row, count:].any()
        assert not outputs["top_log_probability"][row, count:].any()


def test_a_text_ends_before_the_first_stop_string(export, reference_written):
    """Within a token, across tokens, of any bytes, several, none; not in the prompt."""
    surface = export.tokenizer.token_bytes()
    rows = []
    for seed in range(6):
        new = reference_tokens(export, "two", max_new_tokens=CAP, seed=seed)
        text = b"".join(surface[token] for token in new)
        rows += [
            (seed, new, stops)
            for stops in (
                [text[2:4], b"two"],
                [text[-1:]],
                [text[3:5], text[1:5], text[4:7]],
                [text],
                [text[:1]],
                [text + b"!", b""],
            )
        ]
    outputs = export.generate(
        ["two"] * len(rows), seed=[row[0] for row in rows], stop=[r[2] for r in rows]
    )
    cuts = 0
    for row, (_, new, stops) in enumerate(rows):
        text, count = reference_written(new, surface, END, stops)
        cuts += text != reference_written(new, surface, END, [])[0]
        assert outputs["text"][row] == text
        assert outputs["new_tokens"][row] == count
    assert cuts > len(rows) / 2


def test_a_row_that_stops_draws_no_more(export):
    """The batch is as wide as its longest row, so a stop shows in the outputs."""
    first = export.generate(["two"], temperature=0.0)["token"][0]
    surface = export.tokenizer.token_bytes()
    names = display_strings(export.tokenizer)
    stop = next(surface[names.index(name.decode())] for name in first[1:])
    outputs = export.generate(["two"] * 2, temperature=0.0, stop=[[stop]] * 2)
    assert outputs["finish_reason"].tolist() == [b"stop"] * 2
    assert outputs["token"].shape[1] == outputs["new_tokens"].max() < CAP


def test_pieces_of_a_continuation_are_those_of_one_request(export):
    """With penalties, which count what earlier requests drew."""
    if not isinstance(export.tokenizer, ByteTokenizer):
        pytest.skip("the text so far may be cut into other tokens than were drawn")
    options: dict[str, Any] = {"seed": 11, "temperature": 2.0}
    options |= {"frequency_penalty": 0.8, "repetition_penalty": 1.2}
    whole = export.generate(["ab"], max_new_tokens=9, **options)["token"][0].tolist()
    surface = export.tokenizer.token_bytes()
    new = reference_tokens(export, "ab", max_new_tokens=9, **options)
    for begin, end in [(0, 1), (1, 3), (3, 9)]:
        if END in new[:begin]:
            break
        prompt = b"ab" + b"".join(surface[token] for token in new[:begin])
        piece = export.generate(
            [prompt], max_new_tokens=end - begin, seed_offset=begin, **options
        )
        assert piece["token"][0].tolist() == whole[begin:end]


def test_beam_search_equals_the_search_written_out(export, reference_beams):
    prompts = ["", "two", LONG, "a b", "naïve"]
    options: dict[str, list[Any]] = {
        "max_new_tokens": [4, 3, 4, 0, 3],
        "num_beams": [4, 1, 3, 2, 99],
        "length_penalty": [1.0, 1.0, 0.0, 1.0, 2.5],
    }
    surface = export.tokenizer.token_bytes()
    plain = export.beam_search(prompts, **options)
    byte = next(
        piece for piece in surface[::-1] if piece and piece in plain["text"][4, 0]
    )
    for stops in ([], [byte, surface[60]]):
        outputs = export.beam_search(prompts, **options, stop=[stops] * len(prompts))
        for row, prompt in enumerate(prompts):
            limit = options["max_new_tokens"][row]
            ids = [START, *export.ids(prompt)][-(CONTEXT - limit) :]
            expected = reference_beams(
                lambda new, ids=ids: log_softmax(export.next_logits(ids + new)),
                surface,
                END,
                limit=limit,
                num_beams=min(options["num_beams"][row], 4),
                length_penalty=options["length_penalty"][row],
                stops=stops,
            )
            missing = 4 - len(expected)
            expected += [(-np.inf, -np.inf, b"", 0, "")] * missing
            totals, scores, texts, counts, reasons = zip(*expected, strict=True)
            np.testing.assert_allclose(
                outputs["log_probability"][row], totals, atol=1e-3
            )
            np.testing.assert_allclose(outputs["score"][row], scores, atol=1e-3)
            assert outputs["text"][row].tolist() == list(texts)
            assert outputs["new_tokens"][row].tolist() == list(counts)
            given = [reason.decode() for reason in outputs["finish_reason"][row]]
            assert given == list(reasons)


def test_one_beam_is_greedy_generation(export):
    prompts = ["two", "", LONG, "a"]
    beams = export.beam_search(prompts, num_beams=1)
    greedy = export.generate(prompts, temperature=0.0)
    for key in ("text", "new_tokens", "finish_reason"):
        assert beams[key][:, 0].tolist() == greedy[key].tolist()
    # A beam's sum counts `</s>` as well.
    whole = greedy["finish_reason"] == b"length"
    sums = greedy["log_probability"].sum(axis=1)
    np.testing.assert_allclose(
        beams["log_probability"][whole, 0], sums[whole], atol=1e-4
    )
    assert (beams["log_probability"][~whole, 0] < sums[~whole]).all()


def test_token_alternatives_are_the_likeliest_beside_the_scores(export):
    texts = ["two words", LONG, ""]
    outputs = export.call("token_alternatives", text=texts)
    scores = export.call("token_scores", text=texts)
    np.testing.assert_array_equal(outputs["token"], scores["token"])
    np.testing.assert_array_equal(outputs["length"], scores["length"])
    np.testing.assert_allclose(
        outputs["log_probability"], scores["log_probability"], atol=1e-4
    )
    names = display_strings(export.tokenizer)
    ids = [START, *export.ids(texts[0])][:CONTEXT]
    logs = export.log_probabilities(ids)
    logs[:, BANNED] = -np.inf
    for place, at in enumerate(logs):
        best = np.argsort(-at, kind="stable")[:5]
        shown = [token.decode() for token in outputs["top_token"][0, place]]
        assert shown == [names[token] for token in best]
        np.testing.assert_allclose(
            outputs["top_log_probability"][0, place], at[best], atol=1e-4
        )
    # Of a long document, each place is seen once, in its own window.
    assert (outputs["top_log_probability"][1] < 0).all()
    behind = outputs["length"][2]
    assert not outputs["top_log_probability"][2, behind:].any()
    assert set(outputs["top_token"][2, behind:].ravel()) == {b""}


def test_token_ids_are_continued_and_scored_as_their_text(export):
    texts = ["two words", "", "naïve 10 €"]
    told = export.call("tokenize", text=texts)
    ids = [
        row[:length].tolist()
        for row, length in zip(told["token_id"], told["length"], strict=True)
    ]
    assert ids == export.tokenizer.tokenize(texts)
    start, end = export.tokenizer.start_token_id, export.tokenizer.end_token_id
    framed = [" ".join(map(str, [start, *row])) for row in ids]
    settings = {"max_new_tokens": 5, "temperature": 0.8, "seed": 3}
    written = export.generate(texts, **settings)
    alike = export.generate(
        [""] * 3, **settings, prompt_ids=framed, alternatives=[2, 0, 1]
    )
    for name in ("text", "token_id", "finish_reason", "log_probability"):
        np.testing.assert_array_equal(alike[name], written[name])
    for row, count in enumerate([2, 0, 1]):
        top = alike["top_token"][row]
        np.testing.assert_array_equal(
            top[:, :count], written["top_token"][row, :, :count]
        )
        assert set(top[:, count:].ravel()) <= {b""}
    np.testing.assert_array_equal(
        export.beam_search([""] * 3, max_new_tokens=3, prompt_ids=framed)["text"],
        export.beam_search(texts, max_new_tokens=3)["text"],
    )
    scored = export.call("token_alternatives", text=texts)
    alike = export.call("id_alternatives", token_ids=framed, alternatives=[5, 0, 0])
    for name in ("log_probability", "length", "top_log_probability"):
        flat = alike[name].reshape(scored[name].shape)
        np.testing.assert_array_equal(flat, scored[name])
    likeliest = [" ".join(map(str, alike["top_id"][0, :5]))]
    [names] = export.call("detokenize", token_ids=likeliest)["token"]
    assert names.tolist() == scored["top_token"][0, 0].tolist()
    # Tokens as they are, in the middle of a text: nothing comes before them.
    odd = [f"{end} {start} 99999999999", ""]
    told = export.call("id_alternatives", token_ids=odd, alternatives=[0, 0])
    assert told["length"].tolist() == [3, 1]
    assert told["top_id"].shape == (2, 0)
    spelled = export.call("detokenize", token_ids=[*framed, f"{start} {end} x"])
    assert spelled["text"].tolist() == [
        *(f"<s>{text}".encode() for text in texts),
        b"<s></s>",
    ]
    assert spelled["token"][-1, :2].tolist() == [b"<s>", b"</s>"]


def test_an_embedding_is_the_mean_of_the_hidden_states(export):
    texts = ["", "two words", LONG, "naïve €"]
    ids = [[export.tokenizer.start_token_id, *export.ids(text)] for text in texts]
    vectors = [mean_state(export.model, row) for row in ids]
    told = export.call("embed", text=texts, token_ids=[""])
    assert told["tokens"].tolist() == [len(row) - 1 for row in ids]
    expected = [vector / np.linalg.norm(vector) for vector in vectors]
    np.testing.assert_allclose(told["embedding"], expected, rtol=1e-4, atol=1e-6)
    # As ids, of which all are counted.
    written = [" ".join(map(str, row)) for row in ids]
    alike = export.call("embed", text=["x"] * 4, token_ids=written)
    np.testing.assert_array_equal(alike["embedding"], told["embedding"])
    assert alike["tokens"].tolist() == [len(row) for row in ids]


def mean_state(model: Any, ids: list[int]) -> np.ndarray:
    """By windows that overlap by half, each token in the first that reaches it."""
    states: list[np.ndarray] = []
    for start in range(0, len(ids), CONTEXT // 2):
        window = ids[start : start + CONTEXT]
        new = len(states) - start
        if new < len(window):
            mask = np.ones((1, len(window)), bool)
            inputs = {"token_ids": np.array([window], "int32"), "padding_mask": mask}
            states += list(np.array(model.backbone(inputs))[0, new:])
    return np.mean(states, axis=0)


def test_an_embedding_may_be_the_last_state(tmp_path):
    model = build("gru", ByteTokenizer())
    options = {"embed_pooling": "last", "embed_normalize": False}
    unchecked.export(model, tmp_path / "export", ["embed"], **options)
    [tokens] = model.preprocessor.tokenizer.tokenize([LONG])
    ids = [START, *tokens]
    last = np.array([ids[-CONTEXT:]], "int32")
    mask = np.ones(last.shape, bool)
    states = model.backbone({"token_ids": last, "padding_mask": mask})
    embed = tf.saved_model.load(tmp_path / "export").signatures["embed"]
    told = embed(text=tf.constant([LONG, ""]), token_ids=tf.constant([""]))
    np.testing.assert_allclose(told["embedding"][0], states[0, -1], rtol=1e-4)
    metadata = read_metadata(tmp_path / "export")
    assert {name: metadata[name] for name in options} == options


def test_an_export_tells_what_it_takes(export):
    told = export.call("model_info", text=["", ""])
    assert told["context_length"].tolist() == [CONTEXT] * 2
    assert told["max_new_tokens"].tolist() == [CAP] * 2
    assert told["vocabulary_size"].tolist() == [export.tokenizer.vocabulary_size()] * 2
    assert told["special_id"][1].tolist() == [0, 1, 2, 3]
    assert told["special_token"][0].tolist() == [b"<pad>", b"<unk>", b"<s>", b"</s>"]


def test_an_export_brings_its_tokenizer_as_hugging_face_reads_it(export):
    folder = Path(export.directory, contract.EXTRA_FOLDER)
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    [ids] = export.tokenizer.tokenize([LONG])
    assert theirs.encode(LONG).ids == [export.tokenizer.start_token_id, *ids]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert (config["eos_token"], config["model_max_length"]) == ("</s>", CONTEXT)


def test_greedy_generation_equals_kerashub_greedy_sampler(export):
    prompt = "two wor"
    [text] = export.generate([prompt], temperature=0.0, max_new_tokens=6)["text"]
    export.model.compile(sampler="greedy")
    length = 1 + len(export.ids(prompt)) + 6
    # KerasHub's text holds the prompt; invalid bytes at its end may be cut.
    assert export.model.generate(prompt, max_length=length) == prompt + text.decode()


def test_a_seed_gives_the_same_text_in_any_row_of_any_batch(export):
    alone = export.generate(["two wor"], seed=5, temperature=1.2)["text"][0]
    others = ["", LONG, "two wor", "a b"]
    batch = export.generate(others, seed=[1, 2, 5, 5], temperature=[1, 2, 1.2, 0])
    assert batch["text"][2] == alone


def test_seeds_draw_from_the_models_distribution(export):
    count, prompt = 2000, "two wor"
    texts = export.generate([prompt] * count, seed=np.arange(count), max_new_tokens=1)[
        "text"
    ]
    expected: dict[str, float] = {}
    probability = export.next_distribution([START, *export.ids(prompt)])
    for surface, value in zip(export.tokenizer.token_bytes(), probability, strict=True):
        text = surface.decode(errors="replace")
        expected[text] = expected.get(text, 0) + value
    for text, value in expected.items():
        deviation = np.sqrt(value * (1 - value) / count)
        # Not `texts == ...`: to NumPy a NUL at the end is nothing.
        frequency = np.mean([drawn == text.encode() for drawn in texts])
        # Five deviations, and one draw for what hardly ever occurs.
        assert frequency == pytest.approx(value, abs=5 * deviation + 1 / count)


def test_a_row_stops_at_the_end_token(export):
    outputs = export.generate(["a"] * 400, seed=np.arange(400), temperature=20.0)
    stopped = outputs["finish_reason"] == b"stop"
    assert stopped.any()
    assert (outputs["new_tokens"][stopped] < CAP).all()
    assert (outputs["new_tokens"][~stopped] == CAP).all()


def test_no_request_passes_the_cap(export):
    outputs = export.generate(["a", LONG], max_new_tokens=10_000, temperature=3.0)
    assert (outputs["new_tokens"] <= CAP).all()


def test_odd_sampling_settings_are_not_an_error(export):
    odd = [np.nan, np.inf, -np.inf, 1e-30, 1e30, 0.0]
    rows = ["two"] * len(odd)
    for outputs in (
        export.generate(rows, temperature=odd),
        export.generate(rows, top_p=odd),
        export.generate(rows, top_k=[-5, 1, 2, 256, 257, 2**31 - 1]),
        export.generate(rows, repetition_penalty=odd),
        export.generate(rows, presence_penalty=odd, frequency_penalty=odd),
        export.generate(rows, seed_offset=[-(2**31), -1, 1, 3, 4, 2**31 - 1]),
        export.generate(rows, max_new_tokens=[-(2**31), -1, 0, 1, 99, 2**31 - 1]),
        export.beam_search(rows, num_beams=[-(2**31), -1, 0, 1, 5, 2**31 - 1]),
        export.beam_search(rows, length_penalty=odd),
    ):
        count = outputs["new_tokens"]
        assert ((count >= 0) & (count <= CAP)).all()
        for value in outputs.values():
            assert value.dtype == object or not np.isnan(value).any()


def test_empty_batches_have_empty_answers(export):
    for signature, key in [
        ("score", "text"),
        ("token_scores", "text"),
        ("token_alternatives", "text"),
        ("serving_default", "text"),
        ("evaluate", "examples"),
        ("tokenize", "text"),
        ("detokenize", "token_ids"),
        ("model_info", "text"),
    ]:
        outputs = export.call(signature, **{key: tf.zeros([0], tf.string)})
        assert all(value.shape[0] == 0 for value in outputs.values())
    none = tf.zeros([0], tf.int32)
    outputs = export.call(
        "id_alternatives", token_ids=tf.zeros([0], tf.string), alternatives=none
    )
    assert all(value.shape[0] == 0 for value in outputs.values())
    assert export.generate([])["text"].shape == (0,)
    assert export.beam_search([])["text"].shape == (0, 4)


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    stop=st.lists(st.binary(max_size=5), max_size=4),
)
def test_arbitrary_bytes_are_scored_and_continued(export, texts, stop):
    scores = export.score(texts)
    assert np.isfinite(scores["nll"]).all()
    assert scores["bytes"].tolist() == [len(text) for text in texts]
    for token in export.call("token_scores", text=texts)["token"].ravel():
        token.decode("utf-8")
    for token in export.call("token_alternatives", text=texts)["top_token"].ravel():
        token.decode("utf-8")
    stops = [stop] * len(texts)
    for signature in (export.generate, export.beam_search):
        for text in signature(texts, max_new_tokens=3, stop=stops)["text"].ravel():
            text.decode("utf-8")


@settings(max_examples=10, deadline=None)
@given(examples=st.lists(st.binary(max_size=40), min_size=1, max_size=3))
def test_what_is_no_example_is_refused_and_the_graph_goes_on(export, examples):
    # TensorFlow puts the bytes into its message, which Python may fail to decode.
    with contextlib.suppress(tf.errors.InvalidArgumentError, UnicodeDecodeError):
        outputs = export.call("evaluate", examples=examples)
        assert np.isfinite(outputs["nll"]).all()


# The LSTM, one of the kinds, is behind the GRU with options; the other variants' caches
# are asked in graphs by tests/models/families.
@pytest.mark.parametrize("export", ["plain_gru", "gated_conv"], indirect=True)
def test_every_signature_of_the_other_families_answers_as_the_model(
    export, reference_beams
):
    test_signatures_have_the_names_dtypes_and_shapes_of_the_design(export)
    test_long_documents_are_scored_in_overlapping_windows(export)
    test_evaluate_scores_the_texts_of_examples(export)
    test_next_tokens_are_the_likeliest_of_the_models_distribution(export)
    test_token_alternatives_are_the_likeliest_beside_the_scores(export)
    test_generation_tells_the_models_own_log_probabilities(export)
    test_beam_search_equals_the_search_written_out(export, reference_beams)


@one_export
def test_a_tf1_session_answers_as_the_loaded_model_does(export):
    text = [LONG, ""]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        definition = tf.compat.v1.saved_model.load(
            session, ["serve"], export.directory
        ).signature_def["score"]
        fetches = {key: info.name for key, info in definition.outputs.items()}
        outputs = session.run(fetches, {definition.inputs["text"].name: text})
    np.testing.assert_allclose(outputs["nll"], export.score(text)["nll"], rtol=1e-6)


def test_metadata_travels_inside_the_export(export):
    metadata = read_metadata(export.directory)
    assert metadata["langzoo_version"] == langzoo.__version__
    assert metadata["context_length"] == CONTEXT
    assert metadata["stride"] == STRIDE
    assert metadata["max_new_tokens"] == CAP
    assert metadata["vocabulary_size"] == export.tokenizer.vocabulary_size()
    assert metadata["model"]["parameters"] == export.model.count_params()
    json.dumps(metadata)


@one_export
def test_a_server_answers_the_warm_up_requests_of_every_signature(export):
    path = Path(export.directory)
    records = tf.data.TFRecordDataset(
        str(path / contract.WARMUP_FILE)
    ).as_numpy_iterator()
    logs = map(prediction_log_pb2.PredictionLog.FromString, records)
    asked = [log.predict_log.request.model_spec.signature_name for log in logs]
    assert sorted(asked) == read_metadata(export.directory)["signatures"]
    servable = load_servable(1, path, config=unchecked.AS_IT_IS)
    assert warm_up(servable, path) == len(servable.definitions) - 1  # the initializer
    servable.close()


@one_export
@pytest.mark.parametrize("option", [{"stride": 17}, {"max_new_tokens": 16}])
def test_an_option_out_of_range_is_refused_by_name(export, tmp_path, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        export_causal_lm(export.model, tmp_path / "1", **option)


@one_export
def test_a_directory_in_use_is_left_alone(tmp_path, export):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "file").write_text("kept")
    with pytest.raises(ExportError, match="not empty"):
        export_causal_lm(export.model, tmp_path / "1")
    assert (tmp_path / "1" / "file").read_text() == "kept"


def test_an_export_that_fails_its_checks_leaves_nothing_behind(tmp_path):
    model = build("lstm", ByteTokenizer())
    variable = model.trainable_variables[0]
    variable.assign(variable * np.nan)
    with unchecked.some(["score"]), pytest.raises(ExportError, match="not finite"):
        export_causal_lm(model, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []
