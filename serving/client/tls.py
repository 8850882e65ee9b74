"""Certificates and keys of a client, for gRPC and for HTTPS."""

from __future__ import annotations

import os
import ssl
import tempfile
from dataclasses import dataclass

import grpc

# PEM itself, or the path of a file that holds it.
Pem = str | os.PathLike[str] | bytes


@dataclass(frozen=True)
class Tls:
    """Secures a connection; each value is PEM as bytes, or the path of a PEM file.

    Attributes:
        root_certificates: whom to believe who the server is; the system's by default.
        private_key: the client's own, where the server wants to know who asks.
        certificate_chain: the client's own, which goes with that key.

    Raises:
        ValueError: a file cannot be read or holds no PEM, or only one of key and
            certificate is given.
    """

    root_certificates: Pem | None = None
    private_key: Pem | None = None
    certificate_chain: Pem | None = None

    def __post_init__(self) -> None:
        if (self.private_key is None) != (self.certificate_chain is None):
            raise ValueError("give private_key and certificate_chain, or neither")
        for name in ("root_certificates", "private_key", "certificate_chain"):
            # What can be wrong shows here, and not in the first request.
            object.__setattr__(self, name, _read(name, getattr(self, name)))

    @classmethod
    def wanted(cls, tls: bool, *files: Pem | None) -> Tls | None:
        """Of the values in their order, where one is given or `tls` is true."""
        return cls(*files) if tls or any(files) else None

    def grpc_credentials(self) -> grpc.ChannelCredentials:
        """For gRPC."""
        return grpc.ssl_channel_credentials(
            self.root_certificates, self.private_key, self.certificate_chain
        )

    def ssl_context(self) -> ssl.SSLContext:
        """For HTTPS."""
        roots, key, chain = (
            value if isinstance(value, bytes) else None
            for value in (
                self.root_certificates,
                self.private_key,
                self.certificate_chain,
            )
        )
        try:
            context = ssl.create_default_context(cadata=roots and roots.decode())
            if key is not None and chain is not None:
                # Python reads a key from a file only; this one is the owner's alone.
                with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                    file.write(chain + b"\n" + key)
                    file.flush()
                    context.load_cert_chain(file.name)
        except ssl.SSLError as error:
            raise ValueError(f"certificates or key cannot be used: {error}") from None
        return context


def _read(name: str, value: Pem | None) -> bytes | None:
    if value is None:
        return None
    content = value
    if not isinstance(content, bytes):
        try:
            with open(content, "rb") as file:
                content = file.read()
        except OSError as error:
            reason = f"cannot read {os.fspath(value)!s}: {error.strerror}"
            raise ValueError(f"{name}: {reason}") from None
    if b"-----BEGIN " not in content:
        raise ValueError(f"{name} must be PEM, or the path of a file with PEM")
    return content
