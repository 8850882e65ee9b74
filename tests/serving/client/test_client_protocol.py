"""The client's own messages, against those of `tensorflow-serving-api`."""

from __future__ import annotations

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from langzoo.serving import protocol
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    status_pb2,
)

ORIGINALS = {
    "TensorShape.Dim": tensor_shape_pb2.TensorShapeProto.Dim,
    "TensorShape": tensor_shape_pb2.TensorShapeProto,
    "Tensor": tensor_pb2.TensorProto,
    "TensorInfo": meta_graph_pb2.TensorInfo,
    "SignatureDef": meta_graph_pb2.SignatureDef,
    "SignatureDefMap": get_model_metadata_pb2.SignatureDefMap,
    "Int64Value": wrappers_pb2.Int64Value,
    "Any": any_pb2.Any,
    "ModelSpec": model_pb2.ModelSpec,
    "PredictRequest": predict_pb2.PredictRequest,
    "PredictResponse": predict_pb2.PredictResponse,
    "GetModelMetadataRequest": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelMetadataResponse": get_model_metadata_pb2.GetModelMetadataResponse,
    "Status": status_pb2.StatusProto,
    "ModelVersionStatus": get_model_status_pb2.ModelVersionStatus,
    "GetModelStatusRequest": get_model_status_pb2.GetModelStatusRequest,
    "GetModelStatusResponse": get_model_status_pb2.GetModelStatusResponse,
}


def on_the_wire(field: FieldDescriptor) -> tuple[int, int, bool]:
    """Number, type and repetition of a field; an enumeration is an int32."""
    kind = field.type
    if kind == FieldDescriptor.TYPE_ENUM:
        kind = FieldDescriptor.TYPE_INT32
    return field.number, kind, field.is_repeated


def assert_same(ours: Descriptor, original: Descriptor) -> None:
    for field in ours.fields:
        twin = original.fields_by_name[field.name]
        assert on_the_wire(field) == on_the_wire(twin), field.full_name
        if field.message_type and field.message_type.GetOptions().map_entry:
            assert twin.message_type.GetOptions().map_entry
            assert_same(field.message_type, twin.message_type)


@pytest.mark.parametrize("name", protocol.MESSAGES)
def test_a_message_is_the_same_on_the_wire(name: str) -> None:
    assert_same(protocol.MESSAGES[name].DESCRIPTOR, ORIGINALS[name].DESCRIPTOR)


def test_messages_refer_to_the_same_messages() -> None:
    twins = {
        protocol.MESSAGES[name].DESCRIPTOR.full_name: original.DESCRIPTOR.full_name
        for name, original in ORIGINALS.items()
    }
    for name, original in ORIGINALS.items():
        for field in protocol.MESSAGES[name].DESCRIPTOR.fields:
            twin = original.DESCRIPTOR.fields_by_name[field.name]
            ours, theirs = field.message_type, twin.message_type
            if ours is not None and ours.GetOptions().map_entry:
                ours = ours.fields_by_name["value"].message_type
                theirs = theirs.fields_by_name["value"].message_type
            if ours is not None:
                assert twins[ours.full_name] == theirs.full_name


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (protocol.State, get_model_status_pb2.ModelVersionStatus.State.items()),
        (
            protocol.DType,
            [
                (dtype.name.upper(), dtype.as_datatype_enum)
                for dtype in (
                    *(tf.float32, tf.float64, tf.int32, tf.uint8, tf.int16),
                    *(tf.int8, tf.string, tf.int64, tf.bool),
                )
            ],
        ),
    ],
)
def test_enumerations_are_the_same(ours: type, theirs: list[tuple[str, int]]) -> None:
    assert {member.name: member.value for member in ours} == dict(theirs)


ARRAYS = [
    np.array([[1.5, -2.0], [0.0, 3.25]], np.float32),
    np.array([1 / 3], np.float64),
    np.array([[[1], [-2]]], np.int32),
    np.array([2**62, -1], np.int64),
    np.array([True, False]),
    np.array([b"a", b"", b"\xff"], object),
    np.array(5, np.int32),
    np.zeros((3, 0), np.float32),
    np.zeros((0, 3), np.int64),
    np.zeros((2, 0, 4), np.int64),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
@pytest.mark.parametrize("packed", [False, True])
def test_tensors_are_read(array: np.ndarray, packed: bool) -> None:
    proto = tf.make_tensor_proto(array)
    if not packed:
        # `serialize_tensor` fills the typed fields, as TensorFlow Serving does.
        serialized = tf.io.serialize_tensor(array).numpy()
        proto = tensor_pb2.TensorProto.FromString(serialized)
    data = proto.SerializeToString()
    assert protocol.nested_list(protocol.Tensor.FromString(data)) == array.tolist()
    response = predict_pb2.PredictResponse(outputs={"y": proto})
    outputs = protocol.PackedPredictResponse.FromString(response.SerializeToString())
    found = protocol.nested_list(outputs.outputs["y"])
    assert np.asarray(found).tolist() == array.tolist()


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.bool_])
def test_numbers_of_several_bytes_are_read_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch, dtype: type
) -> None:
    monkeypatch.setattr(protocol, "_SLICE", 5)
    array = np.array([[1, -1, 300, 0] * 9, [2**31 - 1] * 36]).astype(dtype)
    # `serialize_tensor` fills the typed fields, as TensorFlow Serving does.
    proto = tensor_pb2.TensorProto.FromString(tf.io.serialize_tensor(array).numpy())
    response = predict_pb2.PredictResponse(outputs={"y": proto})
    outputs = protocol.PackedPredictResponse.FromString(response.SerializeToString())
    rows = protocol.nested_list(outputs.outputs["y"])
    assert [list(row) for row in rows] == array.tolist()


def test_strings_packed_as_content_are_read() -> None:
    long = b"x" * 300
    content = bytes([1, 0x80 | (300 & 127), 300 >> 7, 0]) + b"a" + long
    tensor = protocol.Tensor(dtype=protocol.DType.STRING, tensor_content=content)
    tensor.tensor_shape.dim.add(size=3)
    # TensorFlow's own reading is the reference.
    reference = tf.io.parse_tensor(tensor.SerializeToString(), tf.string)
    assert (
        protocol.nested_list(tensor) == reference.numpy().tolist() == [b"a", long, b""]
    )


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({"dtype": 1, "float_val": [1.0]}, [2]),
        ({"dtype": 1, "tensor_content": b"123"}, [1]),
        ({"dtype": 7, "tensor_content": b"\xff"}, [1]),
        ({"dtype": 7, "tensor_content": b"\x05a"}, [1]),
        ({"dtype": 99}, [0]),
        ({"dtype": 1}, [-1]),
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused(
    fields: dict, sizes: list[int]
) -> None:
    tensor = protocol.Tensor(**fields)
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    with pytest.raises(ValueError, match=r"tensor|bytes"):
        protocol.nested_list(tensor)


@pytest.mark.parametrize(
    ("dtype", "rows", "shape"),
    [
        (protocol.DType.STRING, [b"a", b"\xff"], (2,)),
        (protocol.DType.INT32, [1, -1], (2,)),
        (protocol.DType.FLOAT32, [0.5], (1,)),
        (protocol.DType.STRING, [[b"a", b""], [b"b", b"c"], [b"", b""]], (3, 2)),
    ],
)
def test_a_tensor_is_what_tensorflow_makes_of_it(
    dtype: protocol.DType, rows: list, shape: tuple[int, ...]
) -> None:
    message = protocol.tensor(dtype, rows).SerializeToString()
    read = tf.make_ndarray(tensor_pb2.TensorProto.FromString(message))
    assert read.tolist() == rows
    assert read.shape == shape
