"""How commands reach a model server, and the options of what they ask it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..serving.export.contract import Setting, Signature
from ..serving.wording import in_one_line
from .common import fail

if TYPE_CHECKING:
    from ..serving.client import SyncClient


def _option(text: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Connection", **options)


Timeout = Annotated[float, _option("Seconds until an answer.")]
TlsCa = Annotated[
    Path | None, _option("PEM of whom to believe; default: the system's.")
]
TlsKey = Annotated[Path | None, _option("PEM of the key to show to the server.")]
TlsCertificate = Annotated[Path | None, _option("PEM of that key's certificates.")]


@contextlib.contextmanager
def connected(
    server: Annotated[
        str | None,
        _option(
            "Address for gRPC, or of http:// or https:// for REST; default: "
            "127.0.0.1:8500, with --rest 8501.",
            metavar="HOST:PORT|URL",
        ),
    ] = None,
    rest: Annotated[bool, _option("Ask by REST.", "--rest")] = False,
    model_name: Annotated[str, _option("Name of the model.")] = "langzoo",
    model_version: Annotated[int | None, _option("Default: newest.")] = None,
    timeout: Timeout = 60.0,
    retries: Annotated[
        int, _option("How often, up to 4, to ask a server again that is away or busy.")
    ] = 0,
    header: Annotated[
        list[str] | None,
        _option("Goes along with each request.", metavar="NAME=VALUE"),
    ] = None,
    tls: Annotated[bool, _option("Use TLS.", "--tls")] = False,
    tls_ca: TlsCa = None,
    tls_key: TlsKey = None,
    tls_certificate: TlsCertificate = None,
) -> Iterator[SyncClient]:
    """A client; what is wrong with it or its answers ends the command in a line."""
    from ..serving.client import Client, RestClient, ServingError, Tls

    rest = rest or (server or "").startswith(("http://", "https://"))
    headers = dict(_split_header(text) for text in header or ())
    kind: Any = RestClient if rest else Client
    try:
        with kind(
            server or ("127.0.0.1:8501" if rest else "127.0.0.1:8500"),
            model_name,
            version=model_version,
            timeout=timeout,
            retries=retries,
            credentials=Tls.wanted(tls, tls_ca, tls_key, tls_certificate),
            headers=headers,
        ) as client:
            yield client
    except (ServingError, ValueError) as error:
        from ..models.settings import redacted

        fail(in_one_line(redacted(str(error))))


def _split_header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        fail(f"--header {text}: it is NAME=VALUE")
    return name, value


def asks(
    *signatures: Signature,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command a client, and its command line the options of `connected`.

    Args:
        *signatures: what the command asks. Their settings are options as well; the
            command gets those that are given, as its argument `settings`.
    """
    settings = {
        name: _setting_option(signature, name)
        for signature in signatures
        for name, setting in signature.settings.items()
        if not setting.is_for_programs
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        types = {"SyncClient": object}
        own = inspect.signature(command, locals=types, eval_str=True).parameters
        shared = inspect.signature(connected, locals=types, eval_str=True).parameters

        @functools.wraps(command)
        def run(**options: Any) -> None:
            with connected(**{name: options.pop(name) for name in shared}) as client:
                if settings:
                    found = {name: options.pop(name) for name in settings}
                    options["settings"] = {
                        name: _spelled(value) if isinstance(value, list) else value
                        for name, value in found.items()
                        if value is not None and value != []
                    }
                command(client, **options)

        _, *others = (
            option
            for name, parameter in own.items()
            for option in (settings.values() if name == "settings" else [parameter])
        )
        # This is what Typer reads.
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                for parameter in (*others, *shared.values())
            ]
        )
        run.__annotations__ = {}
        return run

    return decorate


def _spelled(strings: list[str]) -> list[str]:
    """Strings as a shell gives them, in which an escape stands for a character."""
    return [
        re.sub(r"\\([nrt\\])", lambda found: _ESCAPES[found[1]], string)
        for string in strings
    ]


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
_TYPES: dict[str, Any] = {"int32": int, "float32": float, "string": str}


def option_of(name: str) -> str:
    """The option for a setting."""
    return "--" + ("beams" if name == "num_beams" else name.replace("_", "-"))


def _setting_option(signature: Signature, name: str) -> inspect.Parameter:
    setting: Setting = signature.settings[name]
    tensor, help_text = signature.inputs[name], setting.meaning
    kind: Any = _TYPES[tensor.dtype]
    kind = (list[kind] if tensor.shape else kind) | None
    if tensor.shape:
        help_text += r" \n is a line's end, \t a tab, \\ a backslash."
    option = typer.Option(
        option_of(name), help=help_text, min=setting.lowest, max=setting.highest
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option],
    )
