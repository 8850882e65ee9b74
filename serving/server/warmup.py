"""Replays the requests that an export brings along to warm it up.

They lie in `assets.extra/tf_serving_warmup_requests`, as TensorFlow Serving reads them:
TFRecords of `PredictionLog`. Errors are those of its `saved_model_warmup_util.cc`.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from grpc import StatusCode
from tensorflow_serving.apis import prediction_log_pb2

from ..errors import ServingError, invalid, status_code
from ..export.contract import WARMUP_FILE
from .inference import classify, multi_inference, predict, regress
from .servable import Servable

_MOST_RECORDS = 1000


def warm_up(servable: Servable, path: Path, iterations: int = 1) -> int:
    """Answers the warm-up requests of the export in `path`, if there are any.

    Args:
        servable: the loaded export.
        path: its folder.
        iterations: how often each is answered.

    Returns:
        How many requests there were.

    Raises:
        ServingError: one of them cannot be read or answered.
    """
    file = path / WARMUP_FILE
    if not file.is_file():
        return 0
    count = 0
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            count += 1
            if count > _MOST_RECORDS:
                raise invalid(
                    f"Number of warmup records exceeds the maximum ({_MOST_RECORDS}) "
                    f"at {file}"
                )
            log = prediction_log_pb2.PredictionLog.FromString(record)
            for _ in range(iterations):
                _answer(servable, log)
    except DecodeError as error:
        raise invalid(f"Failed to parse warmup record {count} from {file}") from error
    except tf.errors.OpError as error:
        raise ServingError(
            status_code(error.error_code),
            f"{error.message}. Please verify your warmup data is in TFRecord format.",
        ) from error
    return count


def _answer(servable: Servable, log: prediction_log_pb2.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        predict(servable, log.predict_log.request)
    elif kind == "classify_log":
        classify(servable, log.classify_log.request)
    elif kind == "regress_log":
        regress(servable, log.regress_log.request)
    elif kind == "multi_inference_log":
        multi_inference(servable, log.multi_inference_log.request)
    elif kind is not None:
        number = log.DESCRIPTOR.fields_by_name[kind].number
        raise ServingError(
            StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}"
        )
