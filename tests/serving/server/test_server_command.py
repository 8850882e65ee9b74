"""The command line: TensorFlow Serving's flags, its files, TLS and sockets."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import langzoo
import pytest
from langzoo.serving.client import Client, ServingError, Tls
from langzoo.serving.server import ModelServer, ServerOptions
from langzoo.serving.server.command import main
from langzoo.serving.server.config_files import (
    ConfigFileError,
    read_metrics_path,
    read_tls_config,
)
from langzoo.serving.server.flags import WITHOUT_EFFECT, build_parser, notices
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
)

Push = Callable[[Path, Path, int], None]
SHIM = Path(langzoo.__file__).parent / "serving" / "tensorflow_model_server"

# All flags of TensorFlow Serving's main.cc.
STOCK_FLAGS = """
    port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms
    rest_api_enable_cors_support enable_batching
    allow_version_labels_for_unavailable_models batching_parameters_file
    enable_per_model_batching_parameters model_config_file
    model_config_file_poll_wait_seconds model_name model_base_path num_load_threads
    num_unload_threads max_num_load_retries load_retry_interval_micros
    file_system_poll_wait_seconds flush_filesystem_caches tensorflow_session_parallelism
    tensorflow_session_config_file tensorflow_intra_op_parallelism
    tensorflow_inter_op_parallelism use_alts_credentials ssl_config_file
    platform_config_file per_process_gpu_memory_fraction saved_model_tags
    grpc_channel_arguments grpc_max_threads enable_model_warmup
    num_request_iterations_for_warmup version monitoring_config_file
    remove_unused_fields_from_bundle_metagraph prefer_tflite_model num_tflite_pools
    num_tflite_interpreters_per_pool enable_signature_method_name_check
    xla_cpu_compilation_enabled xla_gpu_compilation_enabled enable_profiler
    thread_pool_factory_config_file mixed_precision skip_initialize_tpu
    enable_grpc_healthcheck_service enable_serialization_as_tensor_content
"""


@pytest.mark.parametrize("flag", STOCK_FLAGS.split())
def test_every_flag_of_tensorflow_serving_is_accepted(flag: str) -> None:
    value = "k=1" if flag == "grpc_channel_arguments" else "1"
    options = build_parser("x").parse_args([f"--{flag}={value}"])
    told = list(notices(options))
    assert told == ([f"--{flag} has no effect here"] if flag in WITHOUT_EFFECT else [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model_base_path or --model_config_file is required"),
        (["--model_base_path=s3://bucket/m"], "s3://bucket/m is no folder of this"),
        (["--model_base_path=/x", "--colour=red"], "--colour=red"),
        (["--model_base_path=/x", "--enable_batching=maybe"], "neither true nor false"),
        (["--model_base_path=/x", "--port=0"], "--port or --grpc_socket_path"),
        (["--model_base_path=/x", "--use_alts_credentials"], "ALTS is not available"),
        (
            ["--model_base_path=/x", "--batching_parameters_file=f"],
            "--batching_parameters_file needs --enable_batching",
        ),
        (["--model_base_path=/x", "--grpc_channel_arguments=a"], "key=value"),
        (["--model_base_path=/x", "--rest_api_num_threads=0"], "not a positive number"),
        (["--model_base_path=/x", "--max_num_load_retries=-1"], "is negative"),
        (
            [
                "--model_base_path=/x",
                "--tensorflow_session_parallelism=1",
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=1",
            ],
            "give --tensorflow_session_parallelism, or",
        ),
    ],
)
def test_bad_flags_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments, stock=True)
    assert caught.value.code == 255
    assert message in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--colour=red"])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "flag", ["batching_parameters_file", "model_config_file", "ssl_config_file"]
)
def test_a_file_that_is_not_there_is_named(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model_base_path=/x", "--enable_batching", f"--{flag}=/no/file"]
    assert main([*arguments, "--port=0"]) == 1
    error = capsys.readouterr().err
    assert error == "langzoo: cannot read /no/file: No such file or directory\n"


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("TensorFlow ModelServer: langzoo ")


def test_the_monitoring_file_says_whether_and_where(tmp_path: Path) -> None:
    file = tmp_path / "monitoring.config"
    for text, path in [
        ("prometheus_config { enable: true }", "/default"),
        ('prometheus_config { enable: true path: "/m" }', "/m"),
        ("prometheus_config { enable: false }", None),
        ("", None),
    ]:
        file.write_text(text)
        assert read_metrics_path(str(file), "/default") == path


def status(channel: grpc.Channel, name: str) -> Any:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    return stub.GetModelStatus(request, timeout=30).model_version_status


def tls_file(path: Path, authority: Any, verify: bool) -> Path:
    key, certificate = authority.issue("server")
    fields = {"server_key": key, "server_cert": certificate}
    if verify:
        fields["custom_ca"] = authority.certificate
    lines = [f"{name}: {escaped(text)}" for name, text in fields.items()]
    lines.append(f"client_verify: {str(verify).lower()}")
    path.write_text("\n".join(lines))
    return path


def escaped(text: str) -> str:
    return '"' + text.replace("\n", "\\n") + '"'


@contextmanager
def secure_server(tmp_path: Path, authority: Any, verify: bool) -> Iterator[str]:
    """`localhost:PORT` of a server that has no model but answers."""
    file = tls_file(tmp_path / "ssl.config", authority, verify)
    server = ModelServer(
        "m",
        tmp_path,
        host="127.0.0.1",
        grpc_port=0,
        rest_port=None,
        options=ServerOptions(tls=read_tls_config(str(file))),
    )
    with server:
        yield f"localhost:{server.grpc_port}"


def answers(channel: grpc.Channel) -> bool:
    """Whether a server says that it has no model."""
    with channel, pytest.raises(grpc.RpcError) as caught:
        status(channel, "m")
    return caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_tls(tmp_path: Path, new_authority: Callable[[], Any]) -> None:
    authority = new_authority()
    roots = authority.certificate.encode()
    with secure_server(tmp_path, authority, verify=False) as address:
        credentials = grpc.ssl_channel_credentials(roots)
        assert answers(grpc.secure_channel(address, credentials))
        assert not answers(grpc.insecure_channel(address))
        stranger = grpc.ssl_channel_credentials(new_authority().certificate.encode())
        assert not answers(grpc.secure_channel(address, stranger))


def test_mutual_tls(tmp_path: Path, new_authority: Callable[[], Any]) -> None:
    authority = new_authority()
    roots = authority.certificate.encode()
    with secure_server(tmp_path, authority, verify=True) as address:
        for issuer, welcome in ((authority, True), (new_authority(), False)):
            key, certificate = (text.encode() for text in issuer.issue("client"))
            credentials = grpc.ssl_channel_credentials(roots, key, certificate)
            assert answers(grpc.secure_channel(address, credentials)) is welcome
        nobody = grpc.ssl_channel_credentials(roots)
        assert not answers(grpc.secure_channel(address, nobody))


def test_the_systems_authorities_vouch_for_clients_where_no_other_is_named(
    tmp_path: Path,
    new_authority: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority, known = new_authority(), new_authority()
    (tmp_path / "system.pem").write_text(known.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    key, certificate = authority.issue("server")
    file = tmp_path / "ssl.config"
    file.write_text(
        f"server_key: {escaped(key)} server_cert: {escaped(certificate)} "
        "client_verify: true"
    )
    roots = authority.certificate.encode()
    with ModelServer(
        base_path=tmp_path,
        grpc_port=0,
        rest_port=None,
        options=ServerOptions(tls=read_tls_config(str(file))),
    ) as server:
        for issuer, welcome in ((known, True), (authority, False)):
            own = (text.encode() for text in issuer.issue("client"))
            credentials = grpc.ssl_channel_credentials(roots, *own)
            channel = grpc.secure_channel(f"localhost:{server.grpc_port}", credentials)
            assert answers(channel) is welcome


def test_rest_is_as_secure_as_grpc(
    tmp_path: Path, new_authority: Callable[[], Any]
) -> None:
    authority = new_authority()
    tls = read_tls_config(str(tls_file(tmp_path / "ssl.config", authority, True)))
    with ModelServer(
        base_path=tmp_path, grpc_port=0, rest_port=0, options=ServerOptions(tls=tls)
    ) as server:
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://{server.rest_address}/v1/models/m")
        url = f"https://localhost:{server.rest_port}/v1/models/m"
        nobody = ssl.create_default_context(cadata=authority.certificate)
        with pytest.raises(httpx.HTTPError):
            httpx.get(url, verify=nobody)
        known = (text.encode() for text in authority.issue("client"))
        context = Tls(authority.certificate.encode(), *known).ssl_context()
        assert httpx.get(url, verify=context).status_code == 404


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'server_key: "-----BEGIN x" server_cert: "-----BEGIN y"',
            "ssl.config: certificates or key cannot be used",
        ),
        ('server_key: "x" server_cert: "y"', "server_key must be PEM text"),
        ("server_key: 1", "is no SSLConfig"),
    ],
)
def test_a_bad_tls_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "ssl.config"
    file.write_text(text)
    with pytest.raises(ConfigFileError, match=message):
        read_tls_config(str(file))


def test_the_shim_takes_a_stock_command_line(
    tmp_path: Path, language_model: Path, push: Push
) -> None:
    base_path = tmp_path / "base"
    base_path.mkdir()
    push(language_model, base_path, 1)
    (tmp_path / "models.config").write_text(
        f'model_config_list {{ config {{ name: "langzoo" base_path: "{base_path}" '
        'model_platform: "tensorflow" } }'
    )
    (tmp_path / "batching.config").write_text("max_batch_size { value: 16 }")
    (tmp_path / "tf.config").write_text("intra_op_parallelism_threads: 1")
    socket = tmp_path / "grpc.sock"
    command = [
        str(SHIM),
        "--port=0",
        f"--grpc_socket_path={socket}",
        f"--model_config_file={tmp_path / 'models.config'}",
        "--enable_batching=true",
        f"--batching_parameters_file={tmp_path / 'batching.config'}",
        f"--tensorflow_session_config_file={tmp_path / 'tf.config'}",
        "--grpc_channel_arguments=grpc.max_receive_message_length=1000",
        "--enable_serialization_as_tensor_content",
        "--flush_filesystem_caches=false",
        f"--parent_pid={os.getpid()}",
    ]
    environment = {**os.environ, "PYTHON": sys.executable}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().decode() for _ in range(3)]
            assert lines[0] == "langzoo: --flush_filesystem_caches has no effect here\n"
            assert lines[1] == "langzoo: model langzoo version 1 is available\n"
            assert lines[2].endswith(f"gRPC on unix:{socket}, REST off\n")
            with Client(f"unix:{socket}") as client:
                assert client.score(["a b"])[0].words == 2
                with pytest.raises(ServingError) as caught:
                    client.score(["a" * 2000])
                assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
