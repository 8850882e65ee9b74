"""TensorFlow's profiler as `tensorflow.ProfilerService`, which `tf.profiler` asks.

As TensorFlow's own `profiler_service_impl.cc`; but the server writes no file where a
request says so: the profile is in the answer, and the client that ships with
TensorFlow, which takes either, writes it.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from pathlib import Path
from typing import Any

import tensorflow as tf
from grpc import StatusCode
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from ..errors import ServingError, invalid
from ..protocol import build_messages
from .caller import Caller

PROFILER_SERVICE = "tensorflow.ProfilerService"
_FILE = "xplane.pb"
_MOST_MILLISECONDS = 600_000

_MESSAGES = build_messages(
    "profiler",
    {
        "ProfileOptions": """host_tracer_level 2 uint32, device_tracer_level 3 uint32,
            duration_ms 9 uint64""",
        "ProfileRequest": """duration_ms 1 uint64, opts 4 ProfileOptions,
            session_id 6 string, host_name 7 string, emit_xspace 9 bool""",
        "ProfileToolData": "name 1 string, data 2 bytes",
        # The profile is a message, which is to the wire what its bytes are.
        "ProfileResponse": """tool_data 6 ProfileToolData*, empty_trace 7 bool,
            xspace 8 bytes""",
        "TerminateRequest": "session_id 1 string",
        "TerminateResponse": "unused 1 bool",
        "MonitorRequest": "duration_ms 1 uint64",
        "MonitorResponse": "data 1 string",
    },
)


class Profiler:
    """Records what the process does, for one request at a time."""

    def __init__(self) -> None:
        self._ends: dict[str, threading.Event] = {}

    def methods(self) -> dict[str, tuple[Any, Any]]:
        """The procedures of the service: what they take, and what answers."""
        return {
            "Profile": (_MESSAGES["ProfileRequest"], self.profile),
            "Terminate": (_MESSAGES["TerminateRequest"], self.terminate),
            "Monitor": (_MESSAGES["MonitorRequest"], self.monitor),
        }

    def profile(self, request: Any, caller: Caller) -> Any:
        """What TensorFlow does for as long as the request says.

        Raises:
            ServingError: it cannot be recorded, or the caller has left.
        """
        milliseconds = request.opts.duration_ms or request.duration_ms
        if milliseconds > _MOST_MILLISECONDS:
            raise invalid(f"duration_ms must be at most {_MOST_MILLISECONDS}")
        end = threading.Event()
        with tempfile.TemporaryDirectory() as folder:
            try:
                tf.profiler.experimental.start(folder, _options(request.opts))
            except tf.errors.OpError as error:
                raise ServingError(StatusCode.INTERNAL, error.message) from error
            self._ends[request.session_id] = end
            try:
                with caller.stopping(end.set):
                    end.wait(milliseconds / 1000)
            finally:
                self._ends.pop(request.session_id, None)
                tf.profiler.experimental.stop(save=not caller.gone)
            caller.time_left()
            [file] = Path(folder).rglob(f"*.{_FILE}")
            return _response(request, file.read_bytes())

    def terminate(self, request: Any, caller: Caller) -> Any:
        """Ends a profile before its time."""
        with contextlib.suppress(KeyError):
            self._ends[request.session_id].set()
        return _MESSAGES["TerminateResponse"]()

    def monitor(self, request: Any, caller: Caller) -> Any:
        """Is not there, as in TensorFlow Serving."""
        raise ServingError(StatusCode.UNIMPLEMENTED, "unimplemented.")


def _options(given: Any) -> tf.profiler.experimental.ProfilerOptions:
    return tf.profiler.experimental.ProfilerOptions(
        host_tracer_level=given.host_tracer_level or 2,
        device_tracer_level=given.device_tracer_level or 1,
    )


def _response(request: Any, recorded: bytes) -> Any:
    space = xplane_pb2.XSpace.FromString(recorded)
    space.hostnames.append(request.host_name)
    content = space.SerializeToString()
    events = any(line.events for plane in space.planes for line in plane.lines)
    response = _MESSAGES["ProfileResponse"](empty_trace=not events)
    if request.emit_xspace:
        response.xspace = content
    else:
        response.tool_data.add(name=_FILE, data=content)
    return response
