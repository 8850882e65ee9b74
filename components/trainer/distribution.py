"""Training on several devices or machines, as if it were on one.

A step's batch is dealt out to the replicas in equal parts, in order. Each computes its
part's share of the mean loss over the tokens of the whole batch, and its gradient; the
optimizer, clipping included, gets their sum. So the course of a training does not
depend on how many replicas there are, but for dropout, whose masks are drawn anew.

Keras's own step clips before it sums, and averages the means of parts that may have
unequal numbers of tokens; several processes it cannot report on at all.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ..errors import InputError
from .settings import TrainerSettings

NATS = "nats"
"""Result of a step whose loss is not the cross-entropy itself."""
TOKENS = "tokens"
"""Result of a step: the tokens that its loss is the mean of."""
_SUM = tf.distribute.ReduceOp.SUM


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Finds the devices and says how they work together.

    Args:
        name: `one_device`; `mirrored`, all GPUs of this machine, or where it has none
            its logical CPUs; `multi_worker`, the processes that TF_CONFIG names, where
            this one has not used TensorFlow yet; `tpu`; or `auto`, as `wanted` says.

    Raises:
        InputError: Where there is no such thing.
    """
    name = wanted(name)
    if name == "mirrored":
        return _mirrored(_local_devices())
    if name == "multi_worker":
        check_cluster()
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        return _tpu_strategy()
    return tf.distribute.get_strategy()


def wanted(name: str) -> str:
    """Says what `auto` is here: the first of TPU, workers and several GPUs there is."""
    if name != "auto":
        return name
    if os.environ.get("TPU_NAME"):
        return "tpu"
    if _has_cluster():
        return "multi_worker"
    gpus = tf.config.list_logical_devices("GPU")
    return "mirrored" if len(gpus) > 1 else "one_device"


def check_cluster() -> None:
    """Checks the variable that tells this process of the others.

    Raises:
        InputError: Where TF_CONFIG is not set, or is not what TensorFlow reads.
    """
    example = (
        '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    text = os.environ.get("TF_CONFIG", "")
    try:
        content = json.loads(text)
        cluster, task = content["cluster"], content["task"]
        address = cluster[task["type"]][int(task["index"])]
        host, _, port = address.rpartition(":")
        valid = bool(host) and port.isdecimal()
    except (ValueError, LookupError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise InputError(
            "trainer.strategy multi_worker: TF_CONFIG must name this process among all "
            f"of them, as {example}; it is {text or 'not set'}"
        )


def _has_cluster() -> bool:
    """Whether TF_CONFIG names more than one process."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG", ""))["cluster"]
        return sum(len(addresses) for addresses in cluster.values()) > 1
    except (ValueError, LookupError, TypeError, AttributeError):
        return False


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return True
    task = strategy.cluster_resolver
    first = "chief" if "chief" in task.cluster_spec().jobs else "worker"
    return (task.task_type, task.task_id) == (first, 0)


def check_devices(settings: TrainerSettings) -> None:
    """Checks that a training can be done on what there is here, before it is begun.

    Raises:
        InputError: Where devices would share a batch, and a setting needs one, or the
            parts would not be equal.
    """
    name = wanted(settings.strategy)
    if name != "one_device" and (needs := settings.needs_one_device):
        raise InputError(
            f"trainer.{needs} needs one device, and trainer.strategy "
            f"{settings.strategy} is {name} here: set it to one_device"
        )
    if name == "mirrored":
        check_batch_size(settings.batch_size, len(_local_devices()))


def check_batch_size(batch_size: int, replicas: int) -> None:
    """Checks that a batch can be dealt out.

    Raises:
        InputError: Where the parts would not be equal.
    """
    if batch_size % replicas:
        raise InputError(
            f"trainer.batch_size {batch_size} must be a multiple of the {replicas} "
            "devices that share a batch"
        )


def check_agreement(number: int, strategy: tf.distribute.Strategy) -> None:
    """Checks that a number is the same in all processes.

    Raises:
        tf.errors.AbortedError: Where it is not.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return
    own = tf.constant([number, number**2], tf.float64)
    of_all = strategy.experimental_distribute_values_from_function(lambda _: own)
    total, squares = strategy.reduce(_SUM, of_all, axis=None).numpy()
    if replicas * squares != total**2:
        raise tf.errors.AbortedError(
            None, None, f"not all processes go on from batch {number}"
        )


def dealt_out(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Any:
    """Gives every replica its rows of every batch.

    Args:
        batches: Alike in every process; their number of rows is known, and a multiple
            of the replicas'.
        strategy: Of the replicas.
    """
    if strategy.num_replicas_in_sync == 1:
        return batches
    batch_size = batches.element_spec[1].shape[0]

    def of_one_process(context: tf.distribute.InputContext) -> tf.data.Dataset:
        share = batch_size // context.num_input_pipelines
        first = context.input_pipeline_id * share

        def rows(*parts: Any) -> Any:
            return tf.nest.map_structure(lambda x: x[first : first + share], parts)

        per_replica = batch_size // context.num_replicas_in_sync
        return batches.map(rows).rebatch(per_replica, drop_remainder=True).prefetch(2)

    return strategy.distribute_datasets_from_function(of_one_process)


def share_steps(model: keras.Model) -> None:
    """Lets a compiled model's `fit` and `evaluate` take steps on all replicas.

    Its loss must be a sum, and the weights of a batch such that it is their mean. The
    results of a step are `loss` and, without label smoothing, `NATS`.
    """
    strategy = model.distribute_strategy
    optimizer = model.optimizer
    # It gets gradients that are summed already, before it clips them.
    getattr(optimizer, "inner_optimizer", optimizer)._all_reduce_sum_gradients = list
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="sum"
    )

    @tf.function(jit_compile=model.jit_compile, reduce_retracing=True)
    def gradients_of(inputs: Any, targets: Any, weights: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = model.compute_loss(inputs, targets, logits, weights, training=True)
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, model.trainable_weights)
        return loss, cross_entropy(targets, logits, weights), gradients

    def train(inputs: Any, targets: Any, weights: Any) -> Any:
        loss, nats, gradients = gradients_of(inputs, targets, weights)
        loss, nats, gradients = _summed((loss, nats, gradients))
        optimizer.apply(gradients, model.trainable_weights)
        return {"loss": loss, NATS: nats}

    def test(inputs: Any, targets: Any, weights: Any) -> Any:
        nats = cross_entropy(targets, model(inputs, training=False), weights)
        nats, number = _summed((nats, tf.reduce_sum(weights)))
        return {"loss": tf.math.divide_no_nan(nats, number), TOKENS: number}

    def on_all(step: Callable[..., Any]) -> Callable[..., Any]:
        @tf.function(reduce_retracing=True)
        def run(iterator: Any) -> Any:
            results = strategy.run(step, args=next(iterator))
            return tf.nest.map_structure(
                lambda x: strategy.experimental_local_results(x)[0], results
            )

        return run

    model.train_function, model.test_function = on_all(train), on_all(test)
    # It would look for shapes in a mean over the parts, which masks have none of.
    model._maybe_symbolic_build = lambda **_: None


def _summed(values: Any) -> Any:
    return tf.distribute.get_replica_context().all_reduce(_SUM, values)


def _local_devices() -> tuple[str, ...]:
    gpus = tf.config.list_logical_devices("GPU")
    return tuple(d.name for d in gpus or tf.config.list_logical_devices("CPU"))


@functools.cache  # Two on one set of devices take each other's messages for theirs.
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(devices)


def _tpu_strategy() -> tf.distribute.Strategy:
    name = os.environ.get("TPU_NAME", "")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # of many kinds, by what is missing
        raise InputError(
            "trainer.strategy tpu: no TPU can be reached: set TPU_NAME to its name or "
            f"its address, 'local' on a TPU VM; it is {name or 'not set'} "
            f"({str(error).splitlines()[0]})"
        ) from error
    return tf.distribute.TPUStrategy(resolver)
