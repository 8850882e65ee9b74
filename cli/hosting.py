"""Commands that serve a model."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..components import storage
from .common import ConfigFile, app, fail, load_config


@app.command()
def serve(
    config: ConfigFile = None,
    model_base_path: Annotated[
        str | None,
        typer.Option(help="Folder of versions; default: the configuration's."),
    ] = None,
    model_name: Annotated[str, typer.Option(help="Name of the model.")] = "langzoo",
    port: Annotated[int, typer.Option(help="Port for gRPC; 0: any free one.")] = 8500,
    rest_api_port: Annotated[
        int, typer.Option(help="Port for REST; 0: any free one.")
    ] = 8501,
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
    base_path = model_base_path or load_config(config).push_folder
    is_remote = storage.is_remote(base_path)
    if not is_remote:
        base_path = str(Path(base_path).absolute())
    flags = [
        f"--port={port}",
        f"--rest_api_port={rest_api_port}",
        f"--model_name={model_name}",
        f"--model_base_path={base_path}",
        f"--file_system_poll_wait_seconds={file_system_poll_wait_seconds}",
        *(f"--{more.removeprefix('--')}" for more in flag or ()),
    ]
    if engine == "embedded":
        if is_remote:
            fail(
                f"{base_path} is no folder of this machine: mount it, or copy its "
                "versions to one"
            )
        command = [sys.executable, "-m", "langzoo.serving.server", *flags]
    elif engine == "tensorflow_model_server":
        binary = shutil.which(engine) or fail(
            f"there is no {engine} on PATH: install it or leave --engine out"
        )
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
        typer.Option(
            envvar="LANGZOO_API_KEY", help="A key that requests may come with."
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Let pages of this origin ask; * stands for all."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds that the server may take to answer.")
    ] = 60.0,
    max_completions: Annotated[
        int, typer.Option(min=1, help="Most prompts times n in one request.")
    ] = 64,
    max_body_bytes: Annotated[
        int, typer.Option(min=1, help="Most bytes of one request.")
    ] = 1 << 20,
    max_requests: Annotated[
        int, typer.Option(min=1, help="Most requests worked on at a time.")
    ] = 256,
    tls: Annotated[bool, typer.Option(help="Speak TLS to the server.")] = False,
    tls_ca: Annotated[
        Path | None, typer.Option(help="PEM of whom to believe; default: the system's.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="PEM of the key to show to the server.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM of that key's certificates.")
    ] = None,
) -> None:
    """Speak OpenAI's completions API in front of a model server; a playground on /."""
    from ..serving.gateway.app import GatewayOptions
    from ..serving.gateway.command import GatewayError, Upstream, run

    names = [name.partition("=") for name in model or ["langzoo"]]
    options = GatewayOptions(
        api_keys=api_key or (),
        cors_origins=cors_origin or (),
        max_completions=max_completions,
        max_body_bytes=max_body_bytes,
        max_requests=max_requests,
    )
    try:
        run(
            {name: upstream or name for name, _, upstream in names},
            Upstream(server, timeout, tls, tls_ca, tls_key, tls_certificate),
            options,
            host=host,
            port=port,
            announce=typer.echo,
        )
    except GatewayError as error:
        fail(str(error))
