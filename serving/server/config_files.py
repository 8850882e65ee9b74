"""Reads the configuration files that TensorFlow Serving's flags name.

They are protobuf messages as text. Those that `tensorflow-serving-api` lacks are
declared here, by the names and numbers of their fields.
"""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message
from tensorflow.core.protobuf import config_pb2

from ..protocol import build_messages
from .batching import BatchingParameters
from .models import ModelServerConfig

_Message = TypeVar("_Message", bound=Message)

_MESSAGES = build_messages(
    "config",
    {
        "Int64Value": "value 1 int64",
        "StringValue": "value 1 string",
        "BoolValue": "value 1 bool",
        "BatchingParameters": """max_batch_size 1 Int64Value,
            batch_timeout_micros 2 Int64Value, max_enqueued_batches 3 Int64Value,
            num_batch_threads 4 Int64Value, thread_pool_name 5 StringValue,
            allowed_batch_sizes 6 int64*, pad_variable_length_inputs 7 bool,
            enable_large_batch_splitting 8 BoolValue,
            max_execution_batch_size 9 Int64Value""",
        "SSLConfig": """server_key 1 string, server_cert 2 string,
            custom_ca 3 string, client_verify 4 bool""",
        "PrometheusConfig": "enable 1 bool, path 2 string",
        "MonitoringConfig": "prometheus_config 1 PrometheusConfig",
    },
)

# Where distributions keep them; OpenSSL names the place of one alone.
_SYSTEM_AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)


class ConfigFileError(Exception):
    """A file that cannot be used; the message is one line that names it."""


@dataclass(frozen=True)
class TlsConfig:
    """What the server proves who it is with, and whether clients must, too.

    All are PEM; `client_ca` None takes the system's authorities.
    """

    server_key: bytes
    server_certificate: bytes
    client_ca: bytes | None
    client_verify: bool

    def client_authorities(self) -> bytes | None:
        """PEM of those whose clients are welcome; None where clients prove nothing.

        Raises:
            ConfigFileError: it is for the system's, and it has none.
        """
        if not self.client_verify:
            return None
        if self.client_ca is not None:
            return self.client_ca
        paths = ssl.get_default_verify_paths()
        for path in filter(None, (paths.cafile, *_SYSTEM_AUTHORITIES)):
            if Path(path).is_file():
                return Path(path).read_bytes()
        raise ConfigFileError("client_verify needs custom_ca: the system has none")

    def ssl_context(self) -> ssl.SSLContext:
        """The same for HTTPS.

        Raises:
            ConfigFileError: key or certificates cannot be used.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authorities = self.client_authorities()
        try:
            # Python reads a key from a file only; this one is the owner's alone.
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                file.write(self.server_certificate + b"\n" + self.server_key)
                file.flush()
                # Nobody is asked for the password of a key that has one.
                context.load_cert_chain(file.name, password="")
            if authorities is not None:
                context.load_verify_locations(cadata=authorities.decode())
                context.verify_mode = ssl.CERT_REQUIRED
        except (ssl.SSLError, ValueError) as error:
            reason = f"certificates or key cannot be used: {error}"
            raise ConfigFileError(reason) from error
        return context


def read_model_config(path: str) -> ModelServerConfig:
    """The models in a `--model_config_file`."""
    return _read(path, ModelServerConfig())


def read_session_config(path: str) -> config_pb2.ConfigProto:
    """How TensorFlow runs graphs, from a `--tensorflow_session_config_file`."""
    return _read(path, config_pb2.ConfigProto())


def read_batching_parameters(
    path: str, default: BatchingParameters | None = None
) -> BatchingParameters:
    """The batches of a `--batching_parameters_file`, or of a model's own file.

    Args:
        path: the file.
        default: what holds for the keys that the file leaves out.
    """
    message = _read(path, _MESSAGES["BatchingParameters"]())
    values: dict[str, Any] = dict(vars(default or BatchingParameters()))
    for field, value in message.ListFields():
        # A wrapped value has a default that is not zero; the others are plain.
        if field.name == "allowed_batch_sizes":
            values[field.name] = tuple(value)
        else:
            values[field.name] = value.value if hasattr(value, "value") else value
    try:
        return BatchingParameters(**values)
    except ValueError as error:
        raise ConfigFileError(f"{path}: {error}") from error


def read_tls_config(path: str) -> TlsConfig:
    """Keys and certificates of a `--ssl_config_file`."""
    message = _read(path, _MESSAGES["SSLConfig"]())
    for name in ("server_key", "server_cert"):
        if "-----BEGIN" not in getattr(message, name):
            raise ConfigFileError(f"{path}: {name} must be PEM text")
    config = TlsConfig(
        message.server_key.encode(),
        message.server_cert.encode(),
        message.custom_ca.encode() or None,
        message.client_verify,
    )
    try:
        config.ssl_context()
    except ConfigFileError as error:
        raise ConfigFileError(f"{path}: {error}") from error
    return config


def read_metrics_path(path: str, default: str) -> str | None:
    """Where metrics are shown, from a `--monitoring_config_file`; None is nowhere."""
    message = _read(path, _MESSAGES["MonitoringConfig"]()).prometheus_config
    return (message.path or default) if message.enable else None


def _read(path: str, message: _Message) -> _Message:
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigFileError(f"cannot read {path}: {reason}") from error
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        kind = message.DESCRIPTOR.name
        package = "tensorflow" if kind == "ConfigProto" else "tensorflow.serving"
        raise ConfigFileError(
            # What TensorFlow Serving says of it, too.
            f"{path} is no {kind}: Error parsing text-format {package}.{kind}: {error}"
        ) from error
