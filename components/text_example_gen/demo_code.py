"""Words with tags that are there without a download: Python's own functions.

A function is a document, its tokens are the words, and the tags say what the parser
knows of them: a dotted name that is called, an exception that is raised or caught, a
parameter, wherever it is used, a string or a comment.
"""

from __future__ import annotations

import ast
import bisect
import io
import tokenize
from collections.abc import Iterator
from typing import Any, NamedTuple

_WORDS = range(16, 65)
_LAYOUT = frozenset(
    {
        *(tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT),
        tokenize.ENDMARKER,
    }
)
_KINDS = {tokenize.STRING: "STRING", tokenize.COMMENT: "COMMENT"}
_Place = tuple[int, int]


class Function(NamedTuple):
    """A function's words, of which there are 16 to 64, and a tag for each."""

    words: list[str]
    tags: list[str]


def functions(source: str) -> Iterator[Function]:
    """The functions of a module, without their docstrings.

    Args:
        source: of the module; of one that is not ASCII there are none.
    """
    if not source.isascii():
        return
    readline = io.StringIO(source).readline
    tokens = [t for t in tokenize.generate_tokens(readline) if t.type not in _LAYOUT]
    starts = [token.start for token in tokens]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            first, last = (bisect.bisect_left(starts, end) for end in _ends(node))
            function = _tagged(node, tokens[first:last])
            if len(function.words) in _WORDS:
                yield function


def _tagged(node: ast.FunctionDef, tokens: list[tokenize.TokenInfo]) -> Function:
    """The words of a function's tokens, with their tags."""
    spans, nowhere = _spans(node), ((0, 0), (0, 0))
    has_docstring = ast.get_docstring(node) is not None
    docstring = _ends(node.body[0]) if has_docstring else nowhere
    words, tags = list[str](), list[str]()
    kind, end = "", (0, 0)
    for token in tokens:
        if docstring[0] <= token.start < docstring[1]:
            continue
        begins = token.start >= end
        if begins:
            kind, end = spans.get(token.start, ("", (0, 0)))
        if token.type in _KINDS:
            kind, begins = _KINDS[token.type], True
        for word in token.string.split():
            words.append(word)
            tags.append(f"{'B' if begins else 'I'}-{kind}" if kind else "O")
            begins = False
    return Function(words, tags)


def _spans(function: ast.FunctionDef) -> dict[_Place, tuple[str, _Place]]:
    """What begins at places, and where it ends."""
    nodes = list(ast.walk(function))
    parameters = {node.arg for node in nodes if isinstance(node, ast.arg)}
    found: dict[ast.expr, str] = {
        node: "PARAMETER"
        for node in nodes
        if isinstance(node, ast.Name) and node.id in parameters
    }
    found |= {node.func: "CALL" for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if isinstance(node, ast.Raise) and node.exc:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            found[raised] = "EXCEPTION"
        elif isinstance(node, ast.ExceptHandler) and node.type:
            caught = node.type
            several = caught.elts if isinstance(caught, ast.Tuple) else [caught]
            found |= dict.fromkeys(several, "EXCEPTION")
    spans = {}
    for node, kind in found.items():
        if _is_dotted(node):
            begin, end = _ends(node)
            spans[begin] = (kind, end)
    for node in nodes:
        if isinstance(node, ast.arg):
            line, column = begin = _ends(node)[0]
            # Without its annotation.
            spans[begin] = ("PARAMETER", (line, column + len(node.arg)))
    return spans


def _is_dotted(node: ast.expr) -> bool:
    """Whether an expression is a name, or names with dots between."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def _ends(node: Any) -> tuple[_Place, _Place]:
    """Where the source of a node begins, and where it ends."""
    begin = node.lineno, node.col_offset
    return begin, (node.end_lineno, node.end_col_offset)
