"""cuDNN computes what our loops do, and is called where it can be.

Without a GPU its kernels do not run. What is proven here: the weights, as they are
arranged for it, give our outputs by the equations that NVIDIA documents, and are what
Keras's own layers hand over; and the graphs have its ops where they should be.
"""

import importlib

import numpy as np
import pytest
import tensorflow as tf
import unchecked
from langzoo import models
from langzoo.components.trainer.networks import compile_network, network_of
from langzoo.components.trainer.settings import TrainerSettings
from langzoo.models.backbone import portable_graphs
from langzoo.models.families.recurrent import cudnn
from langzoo.models.families.recurrent.layers import GRU, LSTM, SimpleRNN
from langzoo.models.tasks.stateful import StatefulNetwork
from langzoo.serving.export.checks import ExportError, check_ops
from tensorflow.python.framework import kernels

BATCH, LENGTH, DIM, UNITS = 3, 9, 5, 7
LAYERS = {"rnn": SimpleRNN, "gru": GRU, "lstm": LSTM}
FORWARD, BACKWARD = "CudnnRNNV3", "CudnnRNNBackpropV3"
# A function of that name hides the module.
KERAS_RNN = importlib.import_module("keras.src.backend.tensorflow.rnn")
WINDOW = tf.TensorSpec([BATCH, None], tf.int32)


@pytest.fixture(params=LAYERS)
def layer(request):
    """A layer that takes cuDNN, with random weights."""
    return random_layer(LAYERS[request.param], use_cudnn=True)


@pytest.fixture(scope="module")
def inputs():
    return tf.random.stateless_normal((BATCH, LENGTH, DIM), [1, 2])


def random_layer(layer_cls, **options):
    layer = layer_cls(UNITS, **options)
    layer.build((None, None, DIM))
    rng = np.random.default_rng(5)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer


def random_state(layer):
    seeds = range(layer.cell.num_states)
    return tuple(tf.random.stateless_normal((BATCH, UNITS), [3, i]) for i in seeds)


def tiny(family="lstm", **options):
    options = {"num_layers": 2, "hidden_dim": 8, **options}
    return models.build_causal_lm(family, models.ByteTokenizer(), 16, **options)


def ops_of(function, *specs):
    """The ops of a function's graph, as they would run, with those of its loops."""
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
    definition = graph.as_graph_def()
    nodes = [definition.node, *(f.node_def for f in definition.library.function)]
    return {node.op for part in nodes for node in part}


def ops_of_gradient(network, **call):
    """The ops of a step of training on int32 tokens `[BATCH, t]`, without updates."""

    def step(token_ids):
        inputs = {"token_ids": token_ids, "padding_mask": token_ids > 0}
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(inputs, **call))
        gradients = tape.gradient(loss, network.trainable_weights)
        assert all(gradient is not None for gradient in gradients)
        return gradients

    return ops_of(step, WINDOW)


# === What cuDNN is given ===


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def documented(mode, parameters, inputs, state):
    """The equations of cuDNN's documentation, on its flat vector, in float64.

    `inputs` are `(T, B, D)`; a gate's number is its place in `cudnnGetRNNWeightParams`.
    """
    gates = {"rnn_tanh": 1, "gru": 3, "lstm": 4}[mode]
    sizes = [UNITS * DIM] * gates + [UNITS * UNITS] * gates + [UNITS] * 2 * gates
    assert parameters.shape == (sum(sizes),)
    parts = np.split(parameters.astype("float64"), np.cumsum(sizes)[:-1])
    w = [part.reshape(UNITS, DIM) for part in parts[:gates]]
    r = [part.reshape(UNITS, UNITS) for part in parts[gates : 2 * gates]]
    b_w, b_r = parts[2 * gates : 3 * gates], parts[3 * gates :]
    h, *c = (np.asarray(part, "float64") for part in state)
    outputs = []
    for x in np.asarray(inputs, "float64"):
        of_input = [x @ w[k].T + b_w[k] for k in range(gates)]
        of_output = [h @ r[k].T + b_r[k] for k in range(gates)]
        if mode == "rnn_tanh":
            h = np.tanh(of_input[0] + of_output[0])
        elif mode == "gru":  # r, i and the new h
            reset, update = (sigmoid(of_input[k] + of_output[k]) for k in (0, 1))
            new = np.tanh(of_input[2] + reset * of_output[2])
            h = (1 - update) * new + update * h
        else:  # i, f, the new c, o
            total = [of_input[k] + of_output[k] for k in range(4)]
            c = [sigmoid(total[1]) * c[0] + sigmoid(total[0]) * np.tanh(total[2])]
            h = sigmoid(total[3]) * np.tanh(c[0])
        outputs.append(h)
    return np.stack(outputs), (h, *c)


def test_the_documented_equations_on_the_weights_give_our_outputs(layer, inputs):
    state = random_state(layer)
    parameters = cudnn.weight_vector(
        layer.cell,
        layer.kernel.value,
        tf.convert_to_tensor(layer._input_bias()),
        layer._recurrence(BATCH),
    )
    outputs, last = documented(
        layer.cell.cudnn_mode,
        parameters.numpy(),
        tf.transpose(inputs, (1, 0, 2)),
        state,
    )
    with portable_graphs():
        ours, our_last = layer.run(inputs, state)
    np.testing.assert_allclose(tf.transpose(ours, (1, 0, 2)), outputs, atol=1e-5)
    for ours_, other in zip(our_last, last, strict=True):
        np.testing.assert_allclose(ours_, other, atol=1e-5)


def call_of_cudnn(function, *arguments):
    """The op in the graph of `function(*arguments)`, and what it would be fed."""
    specs = [tf.TensorSpec(x.shape, x.dtype) for x in arguments]
    wrapped = tf.compat.v1.wrap_function(function, specs)
    (op,) = (op for op in wrapped.graph.get_operations() if op.type == FORWARD)
    fed = wrapped.prune(wrapped.inputs[: len(specs)], list(op.inputs))
    return op, [value.numpy() for value in fed(*arguments)]


@pytest.mark.parametrize("family", ["gru", "lstm"])
def test_cudnn_is_called_as_keras_calls_it(family, inputs):
    """Of all that the op is fed, but for which of two biases of an LSTM is zero."""
    if not tf.test.is_built_with_cuda():
        pytest.skip("Keras arranges the weights for another library.")
    layer = random_layer(LAYERS[family], use_cudnn=True)
    state = random_state(layer)
    function = {"gru": KERAS_RNN._cudnn_gru, "lstm": KERAS_RNN._cudnn_lstm}[family]

    def of_keras(inputs, *state):
        inputs = tf.transpose(inputs, (1, 0, 2))
        weights = [weight.value for weight in layer.trainable_weights]
        return function(inputs, *state, *weights, None, True, False, True)[1]

    def of_ours(inputs, *state):
        return layer.run(inputs, state, training=True)[0]

    theirs, expected = call_of_cudnn(of_keras, inputs, *state)
    ours, fed = call_of_cudnn(of_ours, inputs, *state)
    for name in ("rnn_mode", "is_training", "time_major", "input_mode", "direction"):
        assert ours.get_attr(name) == theirs.get_attr(name)
    names = ["input", "input_h", "input_c", "params", "sequence_lengths"]
    for name, mine, other in zip(names, fed, expected, strict=True):
        if (family, name) == ("lstm", "params"):
            mine, other = with_one_bias(mine), with_one_bias(other)
        np.testing.assert_array_equal(mine, other, err_msg=name)


def with_one_bias(parameters):
    matrices, biases = np.split(parameters, [4 * UNITS * (DIM + UNITS)])
    return np.concatenate([matrices, biases.reshape(2, -1).sum(axis=0)])


def test_dropped_weights_are_dropped_for_cudnn(inputs):
    layer = random_layer(LSTM, use_cudnn=True, weight_dropout=0.5, seed=9)
    _, fed = call_of_cudnn(lambda x: layer(x, training=True), inputs)
    dropped = fed[3][4 * UNITS * DIM :][: 4 * UNITS * UNITS] == 0
    assert 0.2 < dropped.mean() < 0.8


# === What becomes of it in a graph ===


def test_shapes_in_a_graph_are_those_of_the_loop(layer, inputs):
    @tf.function(autograph=False)
    def run(inputs, *state):
        return layer.run(inputs, state, training=True)

    state = [tf.TensorSpec([BATCH, UNITS])] * layer.cell.num_states
    for length in (LENGTH, None):
        spec = tf.TensorSpec([BATCH, length, DIM])
        outputs, last = run.get_concrete_function(spec, *state).structured_outputs
        assert outputs.shape.as_list() == [BATCH, length, UNITS]
        assert [part.shape.as_list() for part in last] == [[BATCH, UNITS]] * len(state)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("family", LAYERS)
def test_forward_and_backward_are_calls_of_cudnn_and_no_loop(family, training):
    network = tiny(family, use_cudnn=True, weight_dropout=0.1, dropout=0.1)
    ops = ops_of_gradient(network, training=training)
    assert {FORWARD, BACKWARD} <= ops
    assert not {"While", "StatelessWhile"} & ops


def test_a_carried_state_goes_into_cudnn_and_out_of_it():
    network = StatefulNetwork(tiny(use_cudnn=True).backbone, BATCH)
    ops = ops_of_gradient(network, training=True)
    assert {FORWARD, BACKWARD, "AssignVariableOp"} <= ops


def test_every_type_of_computations_has_a_kernel():
    registered = kernels.get_registered_kernels_for_op(FORWARD).kernel
    types = {
        tf.as_dtype(k.constraint[0].allowed_values.list.type[0]) for k in registered
    }
    assert {tf.float16, tf.bfloat16, tf.float32, tf.float64} == types
    assert {kernel.device_type for kernel in registered} == {"GPU"}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_cudnn_s_too(policy):
    network = tiny(use_cudnn=True, dtype=policy)
    assert {FORWARD, BACKWARD} <= ops_of_gradient(network, training=True)


# === When it is taken ===


@pytest.mark.parametrize(
    ("taken", "options", "call", "place"),
    [
        (True, {"use_cudnn": True}, {"training": True}, None),
        (True, {"use_cudnn": True}, {"training": False}, None),
        (True, {"use_cudnn": True, "weight_dropout": 0.1}, {"training": True}, None),
        (True, {"use_cudnn": True, "recurrent_dropout": 0.1}, {}, None),
        (
            False,
            {"use_cudnn": True, "recurrent_dropout": 0.1},
            {"training": True},
            None,
        ),
        (False, {"use_cudnn": True}, {"training": True, "keep": 1.0}, None),
        (False, {"use_cudnn": True}, {"training": True}, "export"),
        (False, {"use_cudnn": True}, {"training": True}, "xla"),
        (False, {"use_cudnn": "auto"}, {"training": True}, None),  # there is no GPU
        (False, {"use_cudnn": False}, {"training": True}, None),
    ],
)
def test_cudnn_is_called_where_it_can_be(taken, options, call, place, inputs):
    layer = random_layer(LSTM, **options)

    def run(inputs):
        keep = tf.ones((LENGTH, BATCH, 1)) if "keep" in call else None
        state = layer.empty_state(BATCH)
        return layer.run(inputs, state, call.get("training"), keep)[0]

    if place == "xla":
        compiled = tf.function(run, jit_compile=True, autograph=False)
        np.testing.assert_allclose(
            compiled(inputs), run_without(layer, inputs), atol=1e-5
        )
    elif place == "export":
        with portable_graphs():
            assert FORWARD not in ops_of(run, inputs)
        assert FORWARD in ops_of(run, inputs)  # and only there
    else:
        assert (FORWARD in ops_of(run, inputs)) == taken


def run_without(layer, inputs):
    with portable_graphs():
        return layer(inputs, training=True)


def test_an_empty_sequence_is_not_for_cudnn(layer):
    assert layer(tf.zeros((2, 0, DIM))).shape == (2, 0, UNITS)


def test_auto_takes_cudnn_where_tensorflow_sees_a_gpu(monkeypatch, inputs):
    if not tf.test.is_built_with_cuda():
        pytest.skip("This TensorFlow has no cuDNN.")
    gpus = {"GPU": [tf.config.LogicalDevice("/device:GPU:0", "GPU")]}
    with monkeypatch.context() as patched:
        patched.setattr(tf.config, "list_logical_devices", gpus.get)
        layer = random_layer(LSTM)
    # It stays so: a graph is not asked again.
    assert FORWARD in ops_of(lambda x: layer(x, training=True), inputs)


def test_without_a_gpu_auto_is_the_loop_bit_by_bit(inputs):
    auto, never = (random_layer(LSTM, use_cudnn=choice) for choice in ("auto", False))
    assert not cudnn.is_present()
    np.testing.assert_array_equal(
        auto(inputs, training=True), never(inputs, training=True)
    )


def test_the_choice_is_in_the_configuration():
    config = GRU(UNITS, use_cudnn=False).get_config()
    assert GRU.from_config(config).use_cudnn is False
    with pytest.raises(ValueError, match="Received: use_cudnn='always'"):
        GRU(UNITS, use_cudnn="always")
    backbone = tiny(use_cudnn=False).backbone
    assert type(backbone).from_config(backbone.get_config()).use_cudnn is False


# === Training and export ===


@pytest.mark.parametrize(
    ("compiled", "options", "settings"),
    [
        (False, {"use_cudnn": True}, {}),
        (False, {"use_cudnn": True}, {"carry_state": True}),
        (True, {"use_cudnn": True}, {"packing": "best_fit"}),
        (True, {"use_cudnn": True, "recurrent_dropout": 0.1}, {}),
        (True, {"use_cudnn": "auto"}, {}),
        (True, {"use_cudnn": "auto"}, {"carry_state": True}),
    ],
)
def test_trainer_leaves_to_xla_what_does_not_call_cudnn(compiled, options, settings):
    config = TrainerSettings(batch_size=BATCH, **settings)
    network = network_of(tiny(**options), config)
    compile_network(network, config, schedule_steps=1)
    assert network.jit_compile == compiled
    ops = ops_of_gradient(network, training=True)
    assert ({FORWARD, BACKWARD} <= ops) != compiled


def test_keras_does_not_compile_what_carries_a_state_through_cudnn():
    network = StatefulNetwork(tiny(use_cudnn=True).backbone, BATCH)
    with pytest.warns(UserWarning, match="jit_compile=False"):
        network.compile(jit_compile=True)
    assert not network.jit_compile


def test_a_model_that_trains_on_cudnn_is_exported_without(tmp_path):
    model = tiny(use_cudnn=True)
    unchecked.export(model, tmp_path / "1")
    check_ops(tmp_path / "1")
    assert cudnn.may_be_called()  # again


def test_an_export_with_cudnn_is_refused(tmp_path):
    layer = random_layer(LSTM, use_cudnn=True)
    module = tf.Module()
    module.weights = [weight.value for weight in layer.weights]
    serve = tf.function(lambda x: {"y": layer(x)}, autograph=False)
    signature = serve.get_concrete_function(tf.TensorSpec([None, None, DIM]))
    tf.saved_model.save(module, str(tmp_path), {"suspect": signature})
    with pytest.raises(ExportError, match=r"op CudnnRNNV3.*no CPU has.*suspect"):
        check_ops(tmp_path)
