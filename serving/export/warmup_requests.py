"""Requests that an export brings along, so that a server answers them before it serves.

TensorFlow Serving replays `assets.extra/tf_serving_warmup_requests`, and so does our
server: what is slow the first time has then been done. See
https://www.tensorflow.org/tfx/serving/saved_model_warmup.

One request of a signature is enough: with a Transformer of 7 M parameters they took
15 s of CPU time, and after them a call of a new length or batch size took 1.01 to 1.07
times as long as its repetition. So nothing is padded to a few lengths or batch sizes.
"""

from __future__ import annotations

import os

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from .checks import INIT_SIGNATURE, graphs_of, probe
from .contract import WARMUP_FILE


def write_warmup_requests(directory: str | os.PathLike[str]) -> None:
    """Writes a request of one row for each signature of the SavedModel in a folder.

    Inputs with a default are left out, as clients leave them out.
    """
    (graph,) = graphs_of(directory)
    path = os.path.join(directory, WARMUP_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for name, signature in sorted(graph.signature_def.items()):
            if name == INIT_SIGNATURE:
                continue
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = name
            for key, values in probe(signature, rows=1).items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
            writer.write(log.SerializeToString())
