"""Commands that serve a model."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..serving.gateway.options import GatewayOptions
from ..serving.server import base_path as base_paths
from .common import ConfigFile, Corpus, app, fail, load_config
from .connecting import Timeout, TlsCa, TlsCertificate, TlsKey

_API_KEY = "LANGZOO_API_KEY"


def _limit(text: str, *names: str) -> Any:
    return typer.Option(*names, min=1, help=text)


MaxCompletions = Annotated[int, _limit("Most prompts times n in one request.")]
MaxBodyBytes = Annotated[int, _limit("Most bytes of one request.")]
MaxRunning = Annotated[
    int,
    _limit("Most completions worked on at a time.", "--max-running", "--max-requests"),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse unknown fields whatever they say.")
]


@app.command()
def serve(
    config: ConfigFile = None,
    corpus: Corpus = None,
    model_base_path: Annotated[
        str | None,
        typer.Option(help="Folder of versions; default: the configuration's."),
    ] = None,
    model_name: Annotated[str, typer.Option(help="Name of the model.")] = "langzoo",
    port: Annotated[int, typer.Option(help="Port for gRPC; 0: any free one.")] = 8500,
    rest_api_port: Annotated[
        int, typer.Option(help="Port for REST; 0: any free one.")
    ] = 8501,
    rest: Annotated[bool, typer.Option(help="Answer over REST, too.")] = True,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on, 127.0.0.1; 0.0.0.0: for all."),
    ] = None,
    file_system_poll_wait_seconds: Annotated[
        int, typer.Option(help="Seconds between looks for new versions.")
    ] = 1,
    flag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="A flag of TensorFlow Serving, such as enable_batching.",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="embedded, or tensorflow_model_server from PATH.")
    ] = "embedded",
) -> None:
    """Serve the pushed model; new versions are picked up."""
    base_path = model_base_path or load_config(config, corpus).push_folder
    trouble = base_paths.refusal(base_path)
    if not trouble:
        base_path = str(Path(base_path).absolute())
    flags = [
        f"--port={port}",
        *([f"--rest_api_port={rest_api_port}"] if rest else []),
        f"--model_name={model_name}",
        f"--model_base_path={base_path}",
        f"--file_system_poll_wait_seconds={file_system_poll_wait_seconds}",
        *(f"--{more.removeprefix('--')}" for more in flag or ()),
    ]
    if engine == "embedded":
        if trouble:
            fail(trouble)
        command = [sys.executable, "-P", "-m", "langzoo.serving.server", *flags]
        command += [f"--host={host}"] if host else []
    elif engine == "tensorflow_model_server":
        binary = shutil.which(engine) or fail(
            f"there is no {engine} on PATH: install it or leave --engine out"
        )
        if host:
            fail(f"--host: {engine} listens on all addresses; leave --host out")
        command = [binary, *flags]
    else:
        fail(f"--engine {engine}: it is embedded or tensorflow_model_server")
    # The server takes this process's place, and with it signals and exit status.
    os.execv(command[0], command)


@app.command()
def gateway(
    server: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Address for gRPC.")
    ] = "127.0.0.1:8500",
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=UPSTREAM_NAME]",
            help="A model, and its name at the server; default: langzoo.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0: any free one.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(help=f"A key that requests may come with; default: {_API_KEY}."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File of such keys, one a line.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Let pages of this origin ask; * stands for all."),
    ] = None,
    timeout: Timeout = 60.0,
    max_completions: MaxCompletions = GatewayOptions.max_completions,
    max_body_bytes: MaxBodyBytes = GatewayOptions.max_body_bytes,
    max_running: MaxRunning = GatewayOptions.max_running,
    strict: Strict = False,
    tls: Annotated[bool, typer.Option(help="Speak TLS to the server.")] = False,
    tls_ca: TlsCa = None,
    tls_key: TlsKey = None,
    tls_certificate: TlsCertificate = None,
) -> None:
    """Speak OpenAI's completions API in front of a model server; a playground on /."""
    from ..serving.client import Tls
    from ..serving.gateway.command import GatewayError, Upstream, run

    names = [name.partition("=") for name in model or ["langzoo"]]
    limits = GatewayOptions(
        _api_keys(api_key or [], api_key_file),
        *(cors_origin or (), max_completions, max_body_bytes, max_running),
        strict=strict,
    )
    try:
        credentials = Tls.wanted(tls, tls_ca, tls_key, tls_certificate)
    except ValueError as error:
        fail(str(error))
    models = {name: upstream or name for name, _, upstream in names}
    upstream = Upstream(server, timeout, credentials)
    try:
        run(models, upstream, limits, host=host, port=port, announce=typer.echo)
    except GatewayError as error:
        fail(str(error))


def _api_keys(given: list[str], file: Path | None) -> list[str]:
    """The keys of a gateway; none where nobody has said a word of keys."""
    found = [("--api-key", key) for key in given]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            fail(f"cannot read --api-key-file: {error}")
        keys = [line.strip() for line in lines if line.strip()]
        found += [(f"--api-key-file {file}", key) for key in keys or [""]]
    if not found and _API_KEY in os.environ:
        found = [(_API_KEY, os.environ[_API_KEY])]
    for place, key in found:
        if not re.fullmatch(r"[!-~]+", key):
            fail(
                f"{place}: a key is of printable ASCII without white space, and not "
                "empty; for no key leave it out, for several take --api-key-file"
            )
    return [key for _, key in found]
