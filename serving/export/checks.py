"""Checks that an export can be hosted by stock TensorFlow Serving."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from . import contract
from .stock_ops import STOCK_OPS

_COMPILED = "_XlaMustCompile"
# TF2 notes the initializer of tables and assets as a signature of this name.
INIT_SIGNATURE = "__saved_model_init_op"
# Long enough to have a context and a token of several bytes, and the empty text.
_PROBE_TEXTS = ["It works, naïvely.", ""]


class ExportError(Exception):
    """An export that must not be served."""


def check_export(directory: str | os.PathLike[str]) -> None:
    """Checks the ops of a SavedModel and calls its signatures as a server would.

    Raises:
        ExportError: the first thing found wrong.
    """
    check_ops(directory)
    check_signatures(directory)


def check_ops(directory: str | os.PathLike[str]) -> None:
    """Checks that stock TensorFlow Serving links every op of a SavedModel.

    Raises:
        ExportError: an op that it lacks, or a function that asks to be compiled by XLA,
            which it has switched off; the message names the signatures that need it.
    """
    for meta_graph in graphs_of(directory):
        graph = meta_graph.graph_def
        for place, problem in _problems(graph):
            users = sorted(
                name
                for name, signature in meta_graph.signature_def.items()
                if place in _functions_of(signature, graph)
            )
            where = f"signature {', '.join(users)}" if users else "no signature"
            function = f"function {place}" if place else "the main graph"
            raise ExportError(
                f"{problem}, in {function}, used by {where}: "
                "stock TensorFlow Serving cannot run this export"
            )


def graphs_of(directory: str | os.PathLike[str]) -> Sequence[MetaGraphDef]:
    """The graphs of a SavedModel, with their signatures."""
    path = os.path.join(directory, contract.SAVED_MODEL_FILE)
    with tf.io.gfile.GFile(path, "rb") as file:
        return SavedModel.FromString(file.read()).meta_graphs


def check_signatures(directory: str | os.PathLike[str]) -> None:
    """Loads a SavedModel in a TF1 session and calls every signature on short texts.

    That is how TensorFlow Serving runs it; a load that works in TF2 says little.

    Raises:
        ExportError: it does not load, a call fails, or an output is not finite (but
            -inf, the logarithm of nothing).
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            meta_graph = tf.compat.v1.saved_model.load(
                session, [tf.saved_model.SERVING], os.fspath(directory)
            )
        except Exception as error:
            raise ExportError(f"the export does not load: {error}") from error
        for name, signature in meta_graph.signature_def.items():
            if name != INIT_SIGNATURE:
                _check_call(session, name, signature)


def _check_call(session: Any, name: str, signature: SignatureDef) -> None:
    fetches = {key: info.name for key, info in signature.outputs.items()}
    inputs: dict[str, Any] = {
        key: tf.make_ndarray(value) for key, value in signature.defaults.items()
    }
    inputs |= probe(signature, rows=len(_PROBE_TEXTS))
    feeds = {signature.inputs[key].name: value for key, value in inputs.items()}
    try:
        outputs = session.run(fetches, feeds)
    except Exception as error:
        raise ExportError(f"signature {name} cannot be called: {error}") from error
    for key, value in outputs.items():
        is_float = np.issubdtype(value.dtype, np.floating)
        if is_float and not (np.isfinite(value) | np.isneginf(value)).all():
            raise ExportError(f"signature {name}: output {key} is not finite")


def probe(signature: SignatureDef, rows: int) -> dict[str, list[Any]]:
    """Short texts for a signature, and the settings that probes do not leave out."""
    inputs: dict[str, list[Any]] = {}
    for name in signature.inputs:
        value = contract.probe_of(name)
        if value is not None:
            inputs[name] = [value] * rows
        elif name in contract.OF_EXAMPLES:
            inputs[name] = [example_of(text) for text in _PROBE_TEXTS[:rows]]
        elif name not in signature.defaults:
            inputs[name] = [text.encode() for text in _PROBE_TEXTS[:rows]]
    return inputs


def example_of(text: str) -> bytes:
    """A serialized `tf.train.Example` with a text as its feature `text`."""
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
    features = tf.train.Features(feature={"text": value})
    return tf.train.Example(features=features).SerializeToString()


def _problems(graph: GraphDef) -> Iterator[tuple[str, str]]:
    """Pairs of a function's name, "" for the main graph, and what is wrong in it."""
    places: dict[str, Iterable[NodeDef]] = {"": graph.node}
    for function in graph.library.function:
        name = function.signature.name
        places[name] = function.node_def
        if function.attr[_COMPILED].b:
            yield name, f"attribute {_COMPILED}"
    for name, nodes in places.items():
        for node in nodes:
            if node.op not in STOCK_OPS and node.op not in places:
                hint = ", which no CPU has" if node.op.startswith("Cudnn") else ""
                yield name, f"op {node.op} (node {node.name}{hint})"
            if node.attr[_COMPILED].b:
                yield name, f"attribute {_COMPILED} (node {node.name})"


def _functions_of(signature: SignatureDef, graph: GraphDef) -> set[str]:
    """All functions that a signature's outputs need, and "" for the main graph."""
    nodes = {node.name: node for node in graph.node}
    library = {item.signature.name: item.node_def for item in graph.library.function}
    outputs = [info.name.split(":")[0] for info in signature.outputs.values()]
    found, waiting = {""}, [nodes[name] for name in outputs]
    seen = set(outputs)
    while waiting:
        node = waiting.pop()
        for name in _called(node) & library.keys() - found:
            found.add(name)
            waiting.extend(library[name])
        for source in (item.lstrip("^").split(":")[0] for item in node.input):
            if nodes.get(node.name) is node and source not in seen:
                seen.add(source)
                waiting.append(nodes[source])
    return found


def _called(node: NodeDef) -> set[str]:
    names = {node.op}
    for value in node.attr.values():
        names.add(value.func.name)
        names.update(function.name for function in value.list.func)
    return names
