"""Real exports, a model server of them, and the gateway in front of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import openai
import pytest
import unchecked
from asgi import running
from langzoo.models import build
from langzoo.models.tokenizers.byte import ByteTokenizer
from langzoo.models.tokenizers.sentence_piece import train_sentencepiece
from langzoo.serving.export import saved_model
from langzoo.serving.gateway.app import Gateway
from langzoo.serving.gateway.command import Upstream
from langzoo.serving.gateway.options import GatewayOptions
from langzoo.serving.server import ModelServer, ServerOptions

# What the gateway and its tests ask. The server warms up each signature of an export.
ASKED = ["generate", "beam_search", "token_scores", "token_alternatives"]
ASKED += ["id_alternatives", "tokenize", "detokenize", "embed", "model_info"]


@pytest.fixture(scope="package")
def gateway_models(
    topics: list[str], drawn_export: Callable[..., Path]
) -> dict[str, Path]:
    """Base paths of real exports with drawn weights: of bytes, and of subwords."""
    subwords = train_sentencepiece(
        topics[:10], vocabulary_size=400, model_type="bpe", seed=0
    )
    tokenizers = {"bytes": ByteTokenizer(), "subwords": subwords}
    return {name: drawn_export(one, ASKED) for name, one in tokenizers.items()}


@contextlib.contextmanager
def served(models: Mapping[str, Path], folder: Path) -> Iterator[ModelServer]:
    """A model server of base paths by name, with its file in a folder."""
    configs = "".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}'
        for name, path in models.items()
    )
    config_file = folder / "models.config"
    config_file.write_text(f"model_config_list {{ {configs} }}")
    with ModelServer(
        config_file=str(config_file),
        host="127.0.0.1",
        grpc_port=0,
        rest_port=None,
        options=ServerOptions(session=unchecked.AS_IT_IS),
    ) as server:
        assert server.wait_ready(timeout=120)
        yield server


@pytest.fixture(scope="package")
def gateway_server(
    gateway_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    """A model server of `gateway_models`."""
    with served(gateway_models, tmp_path_factory.mktemp("gateway")) as server:
        yield server


@pytest.fixture(scope="package")
def answering_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A model server of a classifier, of a masked language model and of a tagger."""
    of_task = {"of_task": {"labels": ["good", "bad", "odd"]}}
    tags = {"of_task": {"labels": ["B-X", "I-X", "O"]}}
    kinds: dict[str, tuple[str, str, dict[str, Any]]] = {
        "labels": ("text_classifier", "gated_conv", of_task),
        "gaps": ("masked_lm", "bert", {"num_heads": 2}),
        "tags": ("token_classifier", "gated_conv", tags),
    }
    folder = tmp_path_factory.mktemp("answering")
    for name, (task, family, more) in kinds.items():
        sizes = {"num_layers": 1, "hidden_dim": 8, **more}
        model = build(family, ByteTokenizer(), 64, task=task, **sizes)
        generator = np.random.default_rng(7)
        for weight in model.trainable_variables:
            weight.assign(generator.normal(scale=0.5, size=weight.shape))
        with unchecked.exports():
            saved_model.export(model, folder / name / "1", task=task)
    with served({name: folder / name for name in kinds}, folder) as server:
        yield server


@pytest.fixture(scope="package")
def answering_url(answering_server: ModelServer) -> Iterator[str]:
    """The address of a gateway to `answering_server`."""
    models = {name: name for name in ("labels", "gaps", "tags")}
    with gateway(answering_server.grpc_address, models=models) as url:
        yield url


@contextlib.contextmanager
def gateway(
    target: str,
    options: GatewayOptions | None = None,
    models: Mapping[str, str] = {name: name for name in ("bytes", "subwords")},
    **upstream: Any,
) -> Iterator[str]:
    """Runs the gateway to the models at a target, in a thread; gives its address."""
    clients = {
        name: Upstream(target, **upstream).client(known)
        for name, known in models.items()
    }
    with running(Gateway(clients, options or GatewayOptions()).app()) as url:
        yield url


@pytest.fixture(name="gateway", scope="package")
def gateway_fixture() -> Callable[..., contextlib.AbstractContextManager[str]]:
    """`gateway`, for tests, which cannot import this module."""
    return gateway


@pytest.fixture(scope="package")
def gateway_url(gateway_server: ModelServer) -> Iterator[str]:
    """The address of a gateway to `gateway_server`."""
    with gateway(gateway_server.grpc_address) as url:
        yield url


@pytest.fixture(scope="package")
def api(gateway_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{gateway_url}/v1", api_key="none", max_retries=0
    ) as client:
        yield client
