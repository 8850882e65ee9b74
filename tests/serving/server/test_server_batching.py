"""Batches: what is joined, what is refused, and what comes back."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
from grpc import StatusCode
from langzoo.serving.client import Client
from langzoo.serving.errors import ServingError
from langzoo.serving.server import ModelServer, ServerOptions
from langzoo.serving.server.batching import (
    BatchingParameters,
    BatchingRunner,
    BatchScheduler,
    merge,
)
from langzoo.serving.server.caller import Caller
from langzoo.serving.server.config_files import (
    ConfigFileError,
    read_batching_parameters,
)
from langzoo.serving.server.metrics import Metrics
from langzoo.serving.server.servable import Servable, load_servable

Push = Callable[[Path, Path, int], None]
FOREVER = Caller()
FOREVER_TURNS = 1 << 60
WAIT = 5_000_000  # microseconds: longer than a test takes to fill a batch


class Batches:
    """A model that is asked in batches."""

    def __init__(self, path: Path, **parameters: Any) -> None:
        self.metrics = Metrics()
        self.scheduler = BatchScheduler(BatchingParameters(**parameters), self.metrics)
        runner = BatchingRunner(self.scheduler)
        self.servable: Servable = load_servable(1, path, runner=runner)

    def half(self, *values: Any, caller: Caller = FOREVER) -> list[Any]:
        return self.run("half", caller, x=values)["y"]

    def run(self, name: str, caller: Caller = FOREVER, **inputs: Any) -> Any:
        arrays = {key: np.array(value, np.float32) for key, value in inputs.items()}
        return self._ask(name, arrays, caller)

    def examples(self, name: str, texts: list[bytes]) -> Any:
        return self._ask(name, {"inputs": np.array(texts, object)}, FOREVER)

    def spin(self, turns: int, caller: Caller = FOREVER) -> Any:
        return self._ask("spin", {"turns": np.array([turns])}, caller)

    def _ask(self, name: str, arrays: Any, caller: Caller) -> Any:
        signature = self.servable.signature(name)
        assert signature is not None
        return {k: v.tolist() for k, v in signature.run(arrays, (), caller).items()}

    @property
    def runs(self) -> int:
        return self.metrics.batch_runs.value()


@pytest.fixture
def make_of() -> Iterator[Callable[..., Batches]]:
    made: list[Batches] = []

    def make(path: Path, **parameters: Any) -> Batches:
        made.append(Batches(path, **parameters))
        return made[-1]

    yield make
    for batches in made:
        batches.scheduler.close()
        batches.servable.close()


@pytest.fixture
def make(
    make_of: Callable[..., Batches], scale_model: Callable[[int], Path]
) -> Callable[..., Batches]:
    return functools.partial(make_of, scale_model(3))


@pytest.fixture
def make_example(
    make_of: Callable[..., Batches], example_model: Path
) -> Callable[..., Batches]:
    return functools.partial(make_of, example_model)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def refused(call: Callable[..., Any], *arguments: Any) -> tuple[StatusCode, str]:
    with pytest.raises(ServingError) as caught:
        call(*arguments)
    return caught.value.code, caught.value.message


def await_queued(batches: Batches, count: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        queues = list(batches.scheduler._queues.values())
        if sum(len(b.tasks) for queue in queues for b in queue.batches) == count:
            return
        time.sleep(0.001)
    raise AssertionError("the requests are not in the queue")


def await_runs(batches: Batches, count: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if batches.runs == count:
            return
        time.sleep(0.001)
    raise AssertionError("the batches do not run")


def test_requests_that_come_together_are_run_at_once(
    make: Callable[..., Batches], pool: ThreadPoolExecutor
) -> None:
    batches = make(max_batch_size=6, batch_timeout_micros=WAIT)
    start = time.monotonic()
    answers = list(pool.map(lambda x: batches.half(x, 10 * x), [1.0, 2.0, 3.0]))
    # A full batch does not wait for more.
    assert time.monotonic() - start < WAIT / 1e6
    assert answers == [[0.5, 5.0], [1.0, 10.0], [1.5, 15.0]]
    assert batches.runs == 1


def test_a_batch_that_is_not_full_is_run_after_the_timeout(
    make: Callable[..., Batches],
) -> None:
    batches = make(max_batch_size=6, batch_timeout_micros=50_000)
    start = time.monotonic()
    assert batches.half(4.0) == [2.0]
    assert time.monotonic() - start >= 0.05


def test_without_a_timeout_nothing_waits(make: Callable[..., Batches]) -> None:
    batches = make()
    assert [batches.half(4.0), batches.half(6.0)] == [[2.0], [3.0]]
    assert batches.runs == 2


def test_a_batch_is_filled_up_to_an_allowed_size(make: Callable[..., Batches]) -> None:
    batches = make(max_batch_size=8, allowed_batch_sizes=(2, 8))
    assert batches.half(1.0, 2.0, 3.0) == [0.5, 1.0, 1.5]
    parameters = batches.scheduler.parameters
    feeds = merge([{"x": np.float32([1, 2])}, {"x": np.float32([3])}], parameters)
    assert feeds["x"].tolist() == [1, 2, 3, 3, 3, 3, 3, 3]
    assert merge([{"x": np.float32([7])}], parameters)["x"].tolist() == [7, 7]


def test_inputs_of_unequal_length_are_filled_up(
    make: Callable[..., Batches], pool: ThreadPoolExecutor
) -> None:
    batches = make(
        max_batch_size=2, batch_timeout_micros=WAIT, pad_variable_length_inputs=True
    )
    long, short = pool.map(batches.half, [[2.0, 4.0, 6.0], [8.0]])
    assert long == [[1.0, 2.0, 3.0]]
    assert short == [[4.0, 4.0, 4.0]]  # with its own first value


def test_strings_are_filled_up_whole() -> None:
    parameters = BatchingParameters(pad_variable_length_inputs=True)
    first = {"t": np.array([[b"a\0", b"b"]], object)}
    second = {"t": np.array([[b"c\0"]], object)}
    merged = merge([first, second], parameters)["t"]
    assert merged.tolist() == [[b"a\0", b"b"], [b"c\0", b"c\0"]]


def test_inputs_of_unequal_length_are_run_apart_otherwise(
    make: Callable[..., Batches], pool: ThreadPoolExecutor
) -> None:
    batches = make(max_batch_size=3, batch_timeout_micros=WAIT)
    rows = [[2.0, 4.0], [8.0], [6.0, 2.0]]
    assert list(pool.map(batches.half, rows)) == [[[1.0, 2.0]], [[4.0]], [[3.0, 1.0]]]
    assert batches.runs == 2


def test_a_request_without_rows_is_answered_and_harms_no_other(
    make: Callable[..., Batches], pool: ThreadPoolExecutor
) -> None:
    batches = make(
        max_batch_size=4, batch_timeout_micros=200_000, allowed_batch_sizes=(2, 4)
    )
    assert batches.half() == []
    answers = pool.map(lambda x: batches.half(*x), [[2.0], [], [4.0, 6.0], []])
    assert list(answers) == [[1.0], [], [2.0, 3.0], []]


@pytest.mark.parametrize("rows", [[[[]], [[1.0, 2.0]]], [[], [[1.0, 2.0]]]])
def test_what_has_no_values_is_not_filled_up(
    make: Callable[..., Batches], pool: ThreadPoolExecutor, rows: list[Any]
) -> None:
    batches = make(
        max_batch_size=2, batch_timeout_micros=200_000, pad_variable_length_inputs=True
    )
    answers = pool.map(lambda x: batches.run("half", x=x)["y"], rows)
    assert list(answers) == [rows[0], [[0.5, 1.0]]]


def test_a_request_that_the_graph_refuses_fails_alone(
    make_example: Callable[..., Batches], pool: ThreadPoolExecutor
) -> None:
    batches = make_example(max_batch_size=5, batch_timeout_micros=WAIT)
    good = tf.train.Example().SerializeToString()
    texts = [good, good, b"no Example", good, good]
    futures = [pool.submit(batches.examples, "regress", [text]) for text in texts]
    code, message = refused(futures[2].result)
    assert (code, "Could not parse" in message) == (StatusCode.INVALID_ARGUMENT, True)
    del futures[2]
    assert [future.result(30) for future in futures] == [{"outputs": [0.0]}] * 4


def test_signatures_take_turns(
    make_example: Callable[..., Batches], pool: ThreadPoolExecutor
) -> None:
    batches = make_example(max_batch_size=1, num_batch_threads=1)
    callers = [Caller() for _ in range(4)]
    spins = []
    for number, caller in enumerate(callers):
        spins.append(pool.submit(batches.spin, FOREVER_TURNS, caller))
        await_queued(batches, number)  # the first of them is run
    other = pool.submit(batches.examples, "regress", [b""])
    await_queued(batches, 4)
    # After the signature that has waited longest it is the other's turn, although two
    # more full batches wait for the first.
    callers[0].leave()
    await_queued(batches, 3)
    callers[1].leave()
    assert other.result(30) == {"outputs": [0.0]}
    for caller in callers[2:]:
        caller.leave()
    assert {refused(spin.result)[0] for spin in spins} == {StatusCode.CANCELLED}


def test_a_batch_is_stopped_once_all_of_its_callers_have_gone(
    make_example: Callable[..., Batches], pool: ThreadPoolExecutor
) -> None:
    batches = make_example(max_batch_size=2, batch_timeout_micros=300_000)
    callers = [Caller(), Caller()]
    spins = [pool.submit(batches.spin, FOREVER_TURNS, caller) for caller in callers]
    await_runs(batches, 1)
    callers[0].leave()
    with pytest.raises(TimeoutError):
        spins[1].result(0.3)
    callers[1].leave()
    for spin in spins:
        assert refused(lambda spin=spin: spin.result(5))[0] is StatusCode.CANCELLED
    # The queue that stopped it serves again.
    for _ in range(3):
        assert batches.spin(3) == {"turns": [3]}


def test_who_leaves_the_queue_makes_room(
    make_example: Callable[..., Batches], pool: ThreadPoolExecutor
) -> None:
    batches = make_example(
        max_batch_size=1, max_enqueued_batches=1, num_batch_threads=1
    )
    running, waiting = Caller(), Caller()
    first = pool.submit(batches.spin, FOREVER_TURNS, running)
    await_runs(batches, 1)
    second = pool.submit(batches.spin, FOREVER_TURNS, waiting)
    await_queued(batches, 1)
    assert refused(batches.spin, 1)[0] is StatusCode.UNAVAILABLE
    waiting.leave()
    assert refused(second.result, 5)[0] is StatusCode.CANCELLED
    third = pool.submit(batches.spin, 1)
    await_queued(batches, 1)
    running.leave()
    assert third.result(30) == {"turns": [1]}
    assert refused(first.result, 5)[0] is StatusCode.CANCELLED


def test_a_request_beyond_the_largest_batch_is_refused(
    make: Callable[..., Batches],
) -> None:
    batches = make(max_batch_size=2)
    assert refused(batches.half, 1.0, 2.0, 3.0) == (
        StatusCode.INVALID_ARGUMENT,
        "Task size 3 is larger than maximum input batch size 2",
    )


def test_a_large_request_is_run_in_pieces_where_that_is_allowed(
    make: Callable[..., Batches],
) -> None:
    batches = make(
        max_batch_size=100,
        enable_large_batch_splitting=True,
        max_execution_batch_size=2,
    )
    assert batches.half(2.0, 4.0, 6.0, 8.0, 10.0) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert batches.runs == 3


def test_a_full_queue_refuses(
    make: Callable[..., Batches], pool: ThreadPoolExecutor
) -> None:
    batches = make(max_batch_size=2, batch_timeout_micros=WAIT, max_enqueued_batches=1)
    waiting = pool.submit(batches.half, 2.0)
    await_queued(batches, 1)
    code, message = refused(batches.half, 4.0, 6.0)
    assert code is StatusCode.UNAVAILABLE
    assert "queue to which this task was submitted is full" in message
    # What fits into the open batch is taken.
    assert batches.half(8.0) == [4.0]
    assert waiting.result(30) == [1.0]


def test_who_waited_too_long_is_not_worked_for(
    make: Callable[..., Batches], pool: ThreadPoolExecutor
) -> None:
    batches = make(max_batch_size=2, batch_timeout_micros=WAIT)
    deadline = time.monotonic() + 1
    late = pool.submit(batches.half, 4.0, caller=Caller(deadline))
    await_queued(batches, 1)
    time.sleep(max(0.0, deadline - time.monotonic()))
    assert batches.half(6.0) == [3.0]
    assert refused(late.result) == (
        StatusCode.RESOURCE_EXHAUSTED,
        "Run() timeout exceeded while waiting in batching queue",
    )


def test_inputs_need_the_same_first_dimension(make: Callable[..., Batches]) -> None:
    batches = make()
    assert refused(
        lambda: batches.run("serving_default", x=[1.0, 2.0], offset=[1.0])
    ) == (
        StatusCode.INVALID_ARGUMENT,
        "Batching Run() input tensors must have equal 0th-dimension size",
    )
    assert refused(lambda: batches.run("half", x=1.0)) == (
        StatusCode.INVALID_ARGUMENT,
        "Batching Run() input tensors must have at least one dimension",
    )


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("total", "Batched output tensor has 0 dimensions"),
        (
            "mean",
            "Batched output tensor's 0th dimension does not equal the sum of the 0th "
            "dimension sizes of the input tensors",
        ),
    ],
)
def test_outputs_need_a_row_for_each_input_row(
    make: Callable[..., Batches], signature: str, message: str
) -> None:
    answer = refused(lambda: make().run(signature, x=[1.0, 2.0]))
    assert answer == (StatusCode.FAILED_PRECONDITION, message)


def test_an_unloaded_version_leaves_no_queue_behind(
    make: Callable[..., Batches],
) -> None:
    batches = make()
    batches.half(1.0)
    assert not batches.scheduler._queues


ALL_KEYS = """
    max_batch_size { value: 128 } batch_timeout_micros { value: 2000 }
    max_enqueued_batches { value: 64 } num_batch_threads { value: 3 }
    thread_pool_name { value: "pool" } allowed_batch_sizes: 8 allowed_batch_sizes: 32
    pad_variable_length_inputs: true enable_large_batch_splitting { value: true }
    max_execution_batch_size { value: 32 }
"""


def test_the_file_of_parameters_has_all_keys(tmp_path: Path) -> None:
    file = tmp_path / "batching.config"
    file.write_text(ALL_KEYS)
    assert read_batching_parameters(str(file)) == BatchingParameters(
        max_batch_size=128,
        batch_timeout_micros=2000,
        max_enqueued_batches=64,
        num_batch_threads=3,
        thread_pool_name="pool",
        allowed_batch_sizes=(8, 32),
        pad_variable_length_inputs=True,
        enable_large_batch_splitting=True,
        max_execution_batch_size=32,
    )
    file.write_text("batch_timeout_micros {}")  # the value of an empty one is zero
    assert read_batching_parameters(str(file)) == BatchingParameters()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 5", "is no BatchingParameters"),
        ("colour: 5", "colour"),
        ("max_batch_size { value: 0 }", "max_batch_size must be positive; was 0"),
        ("num_batch_threads { value: -1 }", "num_batch_threads must be positive"),
        ("allowed_batch_sizes: 8", "must match max_batch_size; last entry was 8"),
        (
            "max_batch_size { value: 4 } allowed_batch_sizes: [8, 4]",
            "must be monotonically increasing",
        ),
    ],
)
def test_bad_parameters_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "batching.config"
    file.write_text(text)
    with pytest.raises(ConfigFileError, match=message):
        read_batching_parameters(str(file))


def test_a_server_answers_in_batches_as_it_does_alone(
    tmp_path: Path, language_model: Path, push: Push, pool: ThreadPoolExecutor
) -> None:
    push(language_model, tmp_path, 1)
    texts = [f"text number {number}" for number in range(16)]
    batching = BatchingParameters(max_batch_size=8, batch_timeout_micros=20_000)
    server = ModelServer(
        "m",
        tmp_path,
        host="127.0.0.1",
        grpc_port=0,
        rest_port=None,
        threads=16,
        options=ServerOptions(batching=batching),
    )
    with server, Client(server.grpc_address, "m") as client:
        assert server.wait_ready(60)
        alone = client.score(texts[:8]) + client.score(texts[8:])
        before = server.metrics.batch_runs.value()
        together = list(pool.map(lambda text: client.score([text])[0], texts))
        assert together == alone
        assert server.metrics.batch_runs.value() - before < len(texts)


def test_pieces_of_different_shapes_are_refused(
    tmp_path: Path, language_model: Path, push: Push, serve: Any
) -> None:
    push(language_model, tmp_path, 1)
    batching = BatchingParameters(
        max_batch_size=2, enable_large_batch_splitting=True, num_batch_threads=2
    )
    with (
        serve(tmp_path, options=ServerOptions(batching=batching)) as server,
        Client(server.grpc_address) as client,
    ):
        assert len(client.token_scores(["ab", "ab", "ab"])) == 3
        with pytest.raises(ServingError, match="ask for fewer rows at a time") as error:
            client.token_scores(["ab", "ab", "abc"])
        assert error.value.code is StatusCode.INVALID_ARGUMENT


def test_a_model_may_bring_its_own_parameters(
    tmp_path: Path, language_model: Path, push: Push
) -> None:
    push(language_model, tmp_path, 1)
    (tmp_path / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 1 }")
    server = ModelServer(
        "m",
        tmp_path,
        host="127.0.0.1",
        grpc_port=0,
        rest_port=None,
        options=ServerOptions(batching=BatchingParameters(), model_batching=True),
    )
    with server, Client(server.grpc_address, "m") as client:
        assert server.wait_ready(60)
        with pytest.raises(ServingError, match="maximum input batch size 1"):
            client.score(["a", "b"])
