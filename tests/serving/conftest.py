"""Small real SavedModels, and a model server that hosts them."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
import trustme
import unchecked
from langzoo.models.zoo import build_causal_lm
from langzoo.serving.export import contract
from langzoo.serving.export.signatures.rows import signature
from langzoo.serving.server import ModelServer, ServerOptions
from tensorflow.core.protobuf import config_pb2

TEXTS = tf.TensorSpec([None], tf.string)
SYMBOLS = 64
END = SYMBOLS  # of a text, and, as the symbol before the first, its start


class BigramModel(tf.Module):
    """A language model that knows only the byte before, with DESIGN.md's signatures.

    Its `generate` does not write: it answers with what it was asked, so that a test
    sees every setting arrive.
    """

    def __init__(self) -> None:
        logits = np.random.default_rng(0).normal(size=(SYMBOLS + 1, SYMBOLS + 1))
        self.table = tf.Variable(tf.nn.log_softmax(logits.astype(np.float32)))
        self.names = tf.constant([chr(32 + i) for i in range(SYMBOLS)] + ["</s>"])

    def _log_probabilities(
        self, text: tf.Tensor
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        symbols = tf.ragged.map_flat_values(
            lambda c: (
                tf.cast(tf.reshape(tf.io.decode_raw(c, tf.uint8), [-1]), tf.int32)
                % SYMBOLS
            ),
            tf.strings.bytes_split(text),
        )
        bound = tf.fill([tf.size(text), 1], END)
        before = tf.concat([bound, symbols], axis=1)
        after = tf.concat([symbols, bound], axis=1)
        log_probabilities = tf.ragged.map_flat_values(
            lambda b, a: tf.gather_nd(self.table, tf.stack([b, a], -1)), before, after
        )
        return after, log_probabilities

    @tf.function(input_signature=[TEXTS])
    def next_tokens(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        last = tf.strings.substr(text, -1, 1)
        symbol = tf.cast(tf.io.decode_raw(last, tf.uint8)[:, 0], tf.int32) % SYMBOLS
        values, ids = tf.math.top_k(tf.gather(self.table, symbol), 10)
        return {"token": tf.gather(self.names, ids), "probability": tf.exp(values)}

    @tf.function(input_signature=[TEXTS])
    def score(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        _, scores = self._log_probabilities(text)
        return {
            "nll": -tf.reduce_sum(scores, axis=1),
            "tokens": scores.row_lengths(),
            "bytes": tf.cast(tf.strings.length(text), tf.int64),
            "words": tf.strings.split(text).row_lengths(),
            "spelling_nll": tf.cast(tf.strings.length(text) % 3, tf.float32),
        }

    @tf.function(input_signature=[TEXTS])
    def token_scores(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        ids, scores = self._log_probabilities(text)
        names = tf.ragged.map_flat_values(lambda i: tf.gather(self.names, i), ids)
        return {
            "token": names.to_tensor(""),
            "log_probability": scores.to_tensor(0.0),
            "length": tf.cast(scores.row_lengths(), tf.int32),
        }

    @tf.function(
        input_signature=[TEXTS]
        + [
            tf.TensorSpec([None], dtype)
            for dtype in (tf.int32, tf.float32, tf.int32, tf.float32, tf.int32)
        ]
    )
    def generate(
        self,
        prompt: tf.Tensor,
        max_new_tokens: tf.Tensor = tf.constant([16]),  # noqa: B008
        temperature: tf.Tensor = tf.constant([1.0]),  # noqa: B008
        top_k: tf.Tensor = tf.constant([0]),  # noqa: B008
        top_p: tf.Tensor = tf.constant([1.0]),  # noqa: B008
        seed: tf.Tensor = tf.constant([0]),  # noqa: B008
    ) -> dict[str, tf.Tensor]:
        rows = tf.shape(prompt)
        limit = tf.broadcast_to(max_new_tokens, rows)
        texts = [
            tf.broadcast_to(tf.strings.as_string(setting, shortest=True), rows)
            if setting.dtype.is_floating
            else tf.broadcast_to(tf.strings.as_string(setting), rows)
            for setting in (limit, temperature, top_k, top_p, seed)
        ]
        return {
            "text": tf.strings.join([prompt, *texts], "|"),
            "new_tokens": limit,
            "finish_reason": tf.fill(rows, "length"),
        }


# In this order the model says what it was asked.
_TOLD = ["max_new_tokens", "temperature", "top_k", "top_p", "seed"]
_TOLD += ["repetition_penalty", "presence_penalty", "frequency_penalty"]
_TOLD += ["num_beams", "length_penalty", "stop", "seed_offset"]


class TellingModel(BigramModel):
    """The same with what `generate` has learned to tell since, and two more."""

    def signatures(self) -> dict[str, Any]:
        """A function for each signature."""
        return {
            "serving_default": self.next_tokens,
            "score": self.score,
            "token_scores": self.token_scores,
            "cache_scores": signature(
                contract.CACHE_SCORES, cache_size=3, cache_theta=1.0, cache_weight=0.5
            )(self._cached),
            "token_alternatives": self.token_alternatives,
            "embed": signature(contract.EMBED)(self._embedded),
            "generate": signature(contract.GENERATE, max_new_tokens=4)(self._generated),
            "beam_search": signature(
                contract.BEAM_SEARCH, max_new_tokens=4, num_beams=2
            )(self._beams),
        }

    @tf.function(input_signature=[TEXTS])
    def token_alternatives(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = self.token_scores(text)
        places = tf.shape(scores["token"])
        values, ids = tf.math.top_k(self.table[:1], 5)
        shape = tf.concat([places, [5]], 0)
        return {
            **scores,
            "top_token": tf.broadcast_to(tf.gather(self.names, ids), shape),
            "top_log_probability": tf.broadcast_to(values, shape),
        }

    def _embedded(self, text: tf.Tensor, token_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        lengths = [tf.strings.length(value) for value in (text, token_ids)]
        vector = tf.cast(tf.stack(lengths, axis=1), tf.float32) + 0.5
        return {"embedding": vector, "tokens": lengths[0]}

    def _cached(self, text: tf.Tensor, **settings: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = self.token_scores(text)
        added = sum(tf.cast(value, tf.float32) for value in settings.values())
        log_probability = scores["log_probability"] - added[:, tf.newaxis]
        return {**scores, "log_probability": log_probability}

    def _asked(self, prompt: tf.Tensor, settings: dict[str, tf.Tensor]) -> tf.Tensor:
        """The prompts with all settings behind them."""
        texts = []
        for value in (settings[name] for name in _TOLD if name in settings):
            if value.dtype == tf.string:
                texts.append(tf.strings.reduce_join(value, axis=1, separator=","))
            elif value.dtype.is_floating:
                texts.append(tf.strings.as_string(value, shortest=True))
            else:
                texts.append(tf.strings.as_string(value))
        return tf.strings.join([prompt, *texts], "|")

    def _generated(
        self, prompt: tf.Tensor, **settings: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        count = settings["max_new_tokens"]
        places = tf.range(tf.reduce_max(count))
        here = places < count[:, tf.newaxis]
        shape = tf.concat([tf.shape(here), [5]], 0)
        values, ids = tf.math.top_k(self.table[:1], 5)
        return {
            "text": self._asked(prompt, settings),
            "new_tokens": count,
            "finish_reason": tf.fill(tf.shape(prompt), "length"),
            "prompt_tokens": tf.strings.length(prompt),
            "token_id": tf.where(here, places, 0),
            "token": tf.where(here, tf.gather(self.names, places), ""),
            "log_probability": tf.where(here, tf.gather(self.table[0], places), 0.0),
            "top_token": tf.broadcast_to(tf.gather(self.names, ids), shape),
            "top_log_probability": tf.broadcast_to(values, shape),
        }

    def _beams(self, prompt: tf.Tensor, **settings: tf.Tensor) -> dict[str, tf.Tensor]:
        beams = tf.range(4)
        there = beams < settings["num_beams"][:, tf.newaxis]
        log_probability = -1.1 * tf.cast(beams + 1, tf.float32)
        score = log_probability / settings["length_penalty"][:, tf.newaxis]
        asked = self._asked(prompt, settings)[:, tf.newaxis]
        return {
            "text": tf.where(there, asked + tf.strings.as_string(beams), ""),
            "log_probability": tf.where(there, log_probability, -np.inf),
            "score": tf.where(there, score, -np.inf),
            "new_tokens": tf.where(there, beams, 0),
            "finish_reason": tf.where(there, "stop", ""),
        }


class EndlessModel(TellingModel):
    """The same, whose `generate` never ends at a temperature of 1.5."""

    def _generated(
        self, prompt: tf.Tensor, **settings: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        endless = tf.reduce_any(settings["temperature"] == 1.5)
        (turns,) = tf.while_loop(
            lambda turn: endless, lambda turn: (turn + 1,), [tf.constant(0, tf.int64)]
        )
        count = tf.minimum(settings["max_new_tokens"], 40) + tf.cast(turns, tf.int32)
        answer = super()._generated(prompt, **{**settings, "max_new_tokens": count})
        # So much of a prompt is read, and less where many tokens are to be written.
        return {
            **answer,
            "prompt_tokens": tf.minimum(answer["prompt_tokens"], 90 - count),
        }


class ScaleModel(tf.Module):
    """y = factor x + offset, where the offset has the default 2."""

    def __init__(self, factor: float) -> None:
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)] * 2)
    def __call__(
        self,
        x: tf.Tensor,
        offset: tf.Tensor = tf.constant([2.0]),  # noqa: B008
    ) -> dict[str, tf.Tensor]:
        return {"y": self.factor * x + offset, "offset": offset}

    @tf.function(
        input_signature=[
            tf.TensorSpec(None, dtype, name)
            for name, dtype in {
                "float64": tf.float64,
                "int32": tf.int32,
                "uint8": tf.uint8,
                "int64": tf.int64,
                "bool": tf.bool,
                "string": tf.string,
            }.items()
        ]
    )
    def echo(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = {f"{tensor.dtype.name}_out": tensor for tensor in inputs}
        return {**outputs, "string_bytes": inputs[-1]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def half(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x / 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def total(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.reduce_sum(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def mean(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"mean": tf.reduce_mean(x, keepdims=True), "x": x}


class ExampleModel(tf.Module):
    """Reads serialized Examples, as the models for Classify and Regress do.

    `spin` takes as long as it is told to: that many turns of a loop; `spin_apart` makes
    them in a function that stays one operation of the graph. `grind` takes some time
    and cannot be stopped: it is one operation.
    """

    def _x(self, inputs: tf.Tensor) -> tf.Tensor:
        features = {"x": tf.io.FixedLenFeature([], tf.float32, 0.0)}
        return tf.io.parse_example(inputs, features)["x"]

    def outputs(self, inputs: tf.Tensor) -> dict[str, dict[str, tf.Tensor]]:
        """The outputs of each signature, those that are wrong among them."""
        x = self._x(inputs)
        scores = tf.stack([x, 1 - x], axis=1)
        classes = tf.broadcast_to(tf.constant([["yes", "no"]]), tf.shape(scores))
        return {
            "classify": {"classes": classes, "scores": scores},
            "classes": {"classes": classes},
            "scores": {"scores": scores},
            "flat_scores": {"scores": x},
            "whole_scores": {"scores": tf.cast(scores, tf.int32)},
            "uneven": {"classes": classes, "scores": scores[:, :1]},
            "one_score": {"scores": scores[:1]},
            "regress": {"outputs": 2 * x},
            "column": {"outputs": 2 * x[:, tf.newaxis]},
            "table": {"outputs": scores},
            "whole": {"outputs": tf.cast(x, tf.int32)},
            "one": {"outputs": x[:1]},
            "neither": {"y": x},
            "three": {"classes": classes, "scores": scores, "y": x},
        }

    def signatures(self) -> dict[str, Any]:
        """A function for each signature."""
        spec = tf.TensorSpec([None], tf.string, "inputs")
        names = self.outputs(tf.constant([b""]))

        def only(name: str) -> Any:
            return tf.function(
                lambda inputs: self.outputs(inputs)[name], input_signature=[spec]
            )

        functions = {name: only(name) for name in names}
        functions["misnamed"] = tf.function(
            lambda texts: {"scores": self._x(texts)},
            input_signature=[tf.TensorSpec([None], tf.string, "texts")],
        )
        turns_spec = tf.TensorSpec([None], tf.int64, "turns")
        functions["spin"] = tf.function(
            lambda turns: {"turns": _spin(turns)}, input_signature=[turns_spec]
        )
        apart = tf.function(
            _spin,
            input_signature=[turns_spec],
            experimental_attributes={"_noinline": True},
        )
        functions["spin_apart"] = tf.function(
            lambda turns: {"turns": apart(turns)}, input_signature=[turns_spec]
        )
        functions["grind"] = tf.function(
            lambda size: {
                "largest": tf.fill(
                    tf.shape(size), tf.linalg.eigvalsh(tf.ones([size[0], size[0]]))[-1]
                )
            },
            input_signature=[tf.TensorSpec([None], tf.int64, "size")],
        )
        return functions


def _spin(turns: tf.Tensor) -> tf.Tensor:
    (turned,) = tf.while_loop(
        lambda turn: tf.reduce_any(turn < turns),
        lambda turn: (turn + 1,),
        [tf.zeros_like(turns)],
    )
    return turned


def save(factory: pytest.TempPathFactory, name: str, model: Any) -> Path:
    """The folder of a SavedModel with the signatures that the model says."""
    path = factory.mktemp("models") / name
    tf.saved_model.save(model, str(path), model.signatures())
    return path


@pytest.fixture(scope="session")
def example_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a SavedModel for Classify, Regress, and to wait for."""
    return save(tmp_path_factory, "example", ExampleModel())


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a SavedModel with the signatures of a language model."""
    path = tmp_path_factory.mktemp("models") / "bigram"
    model = BigramModel()
    signatures = {
        "serving_default": model.next_tokens,
        "score": model.score,
        "token_scores": model.token_scores,
        "generate": model.generate,
    }
    tf.saved_model.save(model, str(path), signatures)
    return path


@pytest.fixture(scope="session")
def telling_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a SavedModel with all signatures and settings that there are."""
    return save(tmp_path_factory, "telling", TellingModel())


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a SavedModel whose `generate` may be told never to end."""
    return save(tmp_path_factory, "endless", EndlessModel())


@pytest.fixture(scope="session")
def scale_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The folder of a SavedModel that multiplies by a number."""
    folder = tmp_path_factory.mktemp("models")

    def make(factor: int) -> Path:
        path = folder / str(factor)
        if not path.exists():
            model = ScaleModel(float(factor))
            signatures = {
                "serving_default": model.__call__,
                "echo": model.echo,
                "half": model.half,
                "total": model.total,
                "mean": model.mean,
            }
            tf.saved_model.save(model, str(path), signatures)
        return path

    return make


@pytest.fixture(scope="session")
def drawn_export(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """Base path of the real export of a tiny Transformer with a tokenizer of a kind.

    It has all signatures, or some only.
    """
    made: dict[tuple, Path] = {}

    def export(tokenizer: Any, only: Sequence[str] = ()) -> Path:
        kind = type(tokenizer), *only
        if kind not in made:
            sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8}
            model = build_causal_lm("transformer", tokenizer, 64, **sizes)
            generator = np.random.default_rng(7)
            for weight in model.trainable_variables:
                weight.assign(generator.normal(scale=0.5, size=weight.shape))
            made[kind] = tmp_path_factory.mktemp(type(tokenizer).__name__)
            unchecked.export(model, made[kind] / "1", only, max_new_tokens=40)
        return made[kind]

    return export


def push(model: Path, base_path: Path, version: int) -> None:
    """Puts a version into a base path at once, as our Pusher does."""
    unfinished = base_path / f".unfinished-{version}"
    shutil.copytree(model, unfinished)
    unfinished.rename(base_path / str(version))


@pytest.fixture(name="push", scope="session")
def push_fixture() -> Callable[[Path, Path, int], None]:
    """`push`, for tests, which cannot import this module."""
    return push


@pytest.fixture(scope="module")
def language_server(
    language_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    """A server of the language model, as version 7 of `langzoo`."""
    base_path = tmp_path_factory.mktemp("base")
    push(language_model, base_path, 7)
    yield from _serve("langzoo", base_path)


@pytest.fixture(scope="module")
def telling_server(
    telling_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    """A server of the model that has it all, as version 8 of `langzoo`."""
    base_path = tmp_path_factory.mktemp("base")
    push(telling_model, base_path, 8)
    yield from _serve("langzoo", base_path)


@pytest.fixture(scope="module")
def scale_server(
    scale_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    """A server of the model that multiplies by 3, as version 5 of `scale`."""
    base_path = tmp_path_factory.mktemp("base")
    push(scale_model(3), base_path, 5)
    yield from _serve("scale", base_path)


@pytest.fixture(scope="module")
def example_server(
    example_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    """A server of the model that reads Examples, as version 1 of `example`."""
    base_path = tmp_path_factory.mktemp("base")
    push(example_model, base_path, 1)
    yield from _serve("example", base_path)


def _serve(name: str, base_path: Path) -> Iterator[ModelServer]:
    with ModelServer(
        *(name, base_path),
        host="127.0.0.1",
        grpc_port=0,
        rest_port=0,
        poll_seconds=0.05,
        # As in a process of its own, see `hurried.hurry`.
        options=ServerOptions(session=config_pb2.ConfigProto()),
    ) as server:
        assert server.wait_ready(timeout=180)
        yield server


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[ModelServer]]:
    """Serves the model in a folder as `langzoo`; with `ModelServer`'s options."""

    @contextmanager
    def serve(base_path: Path, **options: Any) -> Iterator[ModelServer]:
        options = {"grpc_port": 0, "rest_port": 0, "poll_seconds": 0.05, **options}
        with ModelServer("langzoo", base_path, host="127.0.0.1", **options) as server:
            assert server.wait_ready(180)
            yield server

    return serve


class Authority:
    """An authority that signs certificates, all in PEM."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self.certificate = self._authority.cert_pem.bytes().decode()

    def issue(self, name: str) -> tuple[str, str]:
        """A new key and its certificate."""
        issued = self._authority.issue_cert("localhost", common_name=name)
        certificate, *_ = issued.cert_chain_pems
        return issued.private_key_pem.bytes().decode(), certificate.bytes().decode()


@pytest.fixture(scope="session")
def new_authority() -> type[Authority]:
    """Makes an authority that signs certificates."""
    return Authority


@pytest.fixture(scope="session")
def rest() -> Callable[..., tuple[int, Any]]:
    """Asks a server over REST: status and JSON for a path and, to post it, a body."""

    def ask(server: ModelServer, path: str, body: Any = None) -> tuple[int, Any]:
        data = body
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode()
        request = urllib.request.Request(f"http://{server.rest_address}{path}", data)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return ask
