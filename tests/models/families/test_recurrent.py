"""Our recurrent layers are Keras's, faster; and what the backbones add to them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models.families.recurrent import backbone as recurrent
from langzoo.models.families.recurrent import cells
from langzoo.models.families.recurrent.layers import (
    GRU,
    LSTM,
    SimpleRNN,
)

BATCH, LENGTH, DIM, UNITS = 3, 11, 5, 7
PAIRS = {
    "rnn": (SimpleRNN, keras.layers.SimpleRNN),
    "gru": (GRU, keras.layers.GRU),
    "lstm": (LSTM, keras.layers.LSTM),
}
WEIGH = np.random.default_rng(3).normal(size=(BATCH, LENGTH, UNITS)).astype("f")


@pytest.fixture(scope="module", params=PAIRS)
def pair(request):
    """Our layer and Keras's, with the same weights."""
    ours_cls, theirs_cls = PAIRS[request.param]
    keras.utils.set_random_seed(11)
    ours = ours_cls(UNITS)
    theirs = theirs_cls(UNITS, return_sequences=True)
    ours.build((None, None, DIM))
    theirs.build((None, None, DIM))
    seeds = range(len(ours.weights))
    theirs.set_weights(
        [
            keras.random.normal(w.shape, seed=seed)
            for w, seed in zip(ours.weights, seeds, strict=True)
        ]
    )
    ours.set_weights(theirs.get_weights())
    return ours, theirs


@pytest.fixture(scope="module", params=PAIRS)
def layer_cls(request):
    return PAIRS[request.param][0]


@pytest.fixture(scope="module")
def inputs():
    return tf.random.stateless_normal((BATCH, LENGTH, DIM), [1, 2])


def loss_and_gradients(layer, inputs, training):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(WEIGH * layer(inputs, training=training))
    sources = [inputs, *(weight.value for weight in layer.trainable_weights)]
    return loss, tape.gradient(loss, sources)


@pytest.mark.parametrize("training", [False, True])
def test_outputs_equal_those_of_keras(pair, inputs, training):
    ours, theirs = pair
    np.testing.assert_allclose(
        ours(inputs, training=training), theirs(inputs), atol=1e-5
    )


@pytest.mark.parametrize(
    ("training", "jit_compile"),
    # XLA compiles training alone.
    [(False, None), (False, False), (True, None), (True, False), (True, True)],
)
def test_gradients_equal_those_of_keras(pair, inputs, training, jit_compile):
    ours, theirs = pair
    compute = loss_and_gradients
    if jit_compile is not None:
        compute = tf.function(loss_and_gradients, jit_compile=jit_compile)
    loss, gradients = compute(ours, inputs, training)
    expected_loss, expected = loss_and_gradients(theirs, inputs, training)
    np.testing.assert_allclose(loss, expected_loss, atol=1e-5, rtol=1e-5)
    for gradient, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("begins_anew", [False, True])
def test_gradients_through_the_states_equal_those_of_a_plain_loop(
    pair, inputs, begins_anew
):
    ours, _ = pair
    projected = tf.transpose(ours.project(inputs), (1, 0, 2))
    mask = np.random.default_rng(1).choice([0.0, 2.0], (BATCH, UNITS)).astype("f")
    product = ours._recurrence(BATCH)._replace(mask=mask)
    states = [
        tf.random.stateless_normal((BATCH, UNITS), [5, i])
        for i in range(ours.cell.num_states)
    ]
    keep = None
    if begins_anew:
        keep = np.random.default_rng(2).choice([0.0, 1.0], (LENGTH, BATCH, 1))
        keep = tf.constant(keep, tf.float32)
    results = []
    for run in (cells.run_with_fast_gradient, cells.run):
        sources = [projected, *product.weights, *states]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs, last = run(ours.cell, projected, product, tuple(states), keep)
            loss = tf.reduce_sum(tf.sin(outputs))
            loss += sum(tf.reduce_sum(i * tf.cos(s)) for i, s in enumerate(last, 2))
        results.append([outputs, *last, *tape.gradient(loss, sources)])
    for ours_, plain in zip(*results, strict=True):
        np.testing.assert_allclose(ours_, plain, atol=1e-5, rtol=1e-5)


def test_steps_equal_the_whole_sequence(pair, inputs):
    ours, _ = pair
    state = ours.empty_state(BATCH)
    for time in range(LENGTH):
        output, state = ours.step(inputs[:, time], state)
        np.testing.assert_allclose(output, ours(inputs)[:, time], atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_going_on_from_a_state_equals_the_whole_sequence(pair, inputs, training):
    ours, _ = pair
    first, state = ours.run(inputs[:, :4], ours.empty_state(BATCH), training)
    second, last = ours.run(inputs[:, 4:], state, training)
    whole, expected = ours.run(inputs, ours.empty_state(BATCH), training)
    np.testing.assert_allclose(tf.concat([first, second], 1), whole, atol=1e-6)
    for ours_, other in zip(last, expected, strict=True):
        np.testing.assert_allclose(ours_, other, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_an_empty_sequence_gives_an_empty_output(pair, training):
    ours, _ = pair
    outputs = ours(tf.zeros((2, 0, DIM)), training=training)
    assert outputs.shape == (2, 0, UNITS)


def test_fresh_weights_follow_keras(pair):
    ours, theirs = (type(layer)(UNITS) for layer in pair)
    ours.build((None, None, DIM))
    theirs.build((None, None, DIM))
    assert [w.name for w in ours.weights] == [w.name for w in theirs.cell.weights]
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.cell.weights]
    np.testing.assert_array_equal(ours.bias, theirs.cell.bias)


def test_the_configuration_of_a_layer_round_trips(layer_cls):
    layer = layer_cls(UNITS, recurrent_dropout=0.1, weight_dropout=0.2, seed=5)
    config = layer.get_config()
    assert layer_cls.from_config(config).get_config() == config
    assert (config["recurrent_dropout"], config["weight_dropout"]) == (0.1, 0.2)


def test_the_bias_of_the_forget_gate_is_a_choice():
    layer = LSTM(UNITS, unit_forget_bias=False)
    layer.build((None, None, DIM))
    assert not np.any(layer.bias)
    assert LSTM.from_config(layer.get_config()).unit_forget_bias is False


@pytest.mark.parametrize("rate", [-0.1, 1.0])
@pytest.mark.parametrize("name", ["recurrent_dropout", "weight_dropout"])
def test_a_rate_out_of_range_is_an_error(name, rate):
    with pytest.raises(ValueError, match=f"Received: .*{name}={rate}"):
        GRU(UNITS, **{name: rate})


# === Dropout ===


def test_recurrent_dropout_is_one_mask_of_the_last_output_a_row(layer_cls, inputs):
    """The outputs are those of a loop by hand, with one mask drawn with that seed."""
    layer = layer_cls(UNITS, recurrent_dropout=0.5, seed=7)
    outputs = layer(inputs, training=True)
    generator = keras.random.SeedGenerator(7)
    mask = keras.random.dropout(tf.ones((BATCH, UNITS)), 0.5, seed=generator)
    assert set(np.unique(mask)) == {0.0, 2.0}
    assert len(np.unique(mask, axis=0)) == BATCH  # every row has its own

    plain = layer_cls(UNITS)
    plain.build(inputs.shape)
    plain.set_weights([w.numpy() for w in layer.trainable_weights])
    np.testing.assert_array_equal(layer(inputs), plain(inputs))  # not in training
    state = plain.empty_state(BATCH)
    for time in range(LENGTH):
        recurrent_ = plain._recurrence(BATCH).product(state[0] * mask)
        state, _ = plain.cell.forward(plain.project(inputs[:, time]), recurrent_, state)
        np.testing.assert_allclose(outputs[:, time], state[0], atol=1e-5)


def test_weight_dropout_zeroes_recurrent_weights_in_training_only(layer_cls, inputs):
    layer = layer_cls(UNITS, weight_dropout=0.4)
    layer.build(inputs.shape)
    kernel = layer.recurrent_kernel.numpy()
    np.testing.assert_array_equal(layer._recurrence(1).kernel, kernel)
    dropped = layer._recurrence(1, training=True).kernel.numpy()
    kept = dropped != 0
    assert 0.3 < kept.mean() < 0.9
    np.testing.assert_allclose(dropped[kept], kernel[kept] / 0.6, rtol=1e-5)

    plain = layer_cls(UNITS)
    plain.build(inputs.shape)
    plain.set_weights([w.numpy() for w in layer.trainable_weights])
    np.testing.assert_array_equal(layer(inputs), plain(inputs))
    assert np.abs(layer(inputs, training=True) - plain(inputs)).max() > 1e-3


def test_weight_dropout_is_unbiased():
    layer = SimpleRNN(200, weight_dropout=0.4, seed=3)
    layer.build((None, None, DIM))
    factors = layer._recurrence(1, training=True).kernel / layer.recurrent_kernel
    # The standard error of the mean of these 40,000 is 0.004.
    np.testing.assert_allclose(np.mean(factors), 1, atol=0.02)


def test_dropped_weights_get_no_gradient_and_kept_ones_do(layer_cls, inputs):
    layer = layer_cls(UNITS, weight_dropout=0.5, seed=9)
    layer.build(inputs.shape)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(WEIGH * layer(inputs, training=True))
    gradient = tape.gradient(loss, layer.recurrent_kernel.value).numpy()
    shape = layer.recurrent_kernel.shape
    generator = keras.random.SeedGenerator(9)
    mask = keras.random.dropout(tf.ones(shape), 0.5, seed=generator).numpy()
    np.testing.assert_array_equal(gradient != 0, mask != 0)


@pytest.mark.parametrize("variational", [False, True])
def test_variational_dropout_drops_the_same_units_at_all_steps(variational):
    backbone = tiny("gru", dropout=0.5, variational_dropout=variational)
    for layer in (backbone.input_dropout_layer, *backbone.dropout_layers):
        mask = layer(tf.ones((4, 20, 16)), training=True).numpy()
        assert np.all(mask == mask[:, :1]) == variational
        assert len(np.unique(mask[:, 0], axis=0)) == 4  # every row has its own


def test_each_dropout_has_its_place():
    backbone = tiny("rnn", dropout=0.1, input_dropout=0.2, output_dropout=0.3)
    assert backbone.input_dropout_layer.rate == 0.2
    assert [layer.rate for layer in backbone.dropout_layers] == [0.1, 0.3]
    backbone = tiny("rnn", dropout=0.1, input_dropout=0.0)
    assert backbone.input_dropout_layer.rate == 0.0
    assert [layer.rate for layer in backbone.dropout_layers] == [0.1, 0.1]


# === Backbones ===

VOCABULARY = 50
EVERYTHING = {
    "embedding_dim": 12,
    "tie_embeddings": False,
    "normalize": False,
    "dropout": 0.1,
    "input_dropout": 0.2,
    "output_dropout": 0.3,
    "recurrent_dropout": 0.4,
    "weight_dropout": 0.5,
    "variational_dropout": True,
}


def tiny(family, **hyperparameters):
    sizes = {"num_layers": 2, "hidden_dim": 16, **hyperparameters}
    return models.FAMILIES[family](vocabulary_size=VOCABULARY, **sizes)


def token_ids(*shape):
    return np.random.default_rng(2).integers(0, VOCABULARY, shape).astype("int32")


def as_inputs(ids):
    return {"token_ids": ids, "padding_mask": np.ones(ids.shape, "bool")}


@pytest.mark.parametrize("family", PAIRS)
def test_a_backbone_with_every_option_round_trips(family):
    backbone = tiny(family, **EVERYTHING)
    config = backbone.get_config()
    assert EVERYTHING.items() <= config.items()
    assert type(backbone).from_config(config).get_config() == config


def test_untied_embeddings_of_their_own_width():
    backbone = tiny("gru", embedding_dim=12, tie_embeddings=False)
    model = models.CausalLM(backbone)
    assert backbone.output.shape == (None, None, 12)
    assert backbone.token_embedding.embeddings.shape == (VOCABULARY, 12)
    assert backbone.token_embedding.reverse_embeddings.shape == (12, VOCABULARY)
    assert backbone.projection.kernel.shape == (16, 12)
    assert model.output.shape == (None, None, VOCABULARY)


def test_without_norms_nothing_but_the_recurrence_has_weights():
    backbone = tiny("lstm", normalize=False)
    layers = {layer.name for layer in backbone.layers if layer.weights}
    assert layers == {"token_embedding", "recurrent_0", "recurrent_1"}


@pytest.mark.parametrize("family", PAIRS)
def test_a_plain_stack_equals_a_stack_of_keras_layers(family):
    """Embedding, layers and projection of Keras, with the backbone's weights."""
    backbone = tiny(family, embedding_dim=12, normalize=False)
    embedding = keras.layers.Embedding(VOCABULARY, 12)
    layers = [PAIRS[family][1](16, return_sequences=True) for _ in range(2)]
    reference = keras.Sequential(
        [embedding, *layers, keras.layers.Dense(12, use_bias=False)]
    )
    reference.build((None, None))
    reference.set_weights([weight.numpy() for weight in backbone.trainable_weights])
    ids = token_ids(3, 9)
    np.testing.assert_allclose(backbone(as_inputs(ids)), reference(ids), atol=1e-5)


@pytest.mark.parametrize(
    ("policy", "jit_compile"), [("float32", True), ("mixed_bfloat16", False)]
)
@pytest.mark.parametrize("family", PAIRS)
def test_every_option_trains_every_weight(family, policy, jit_compile):
    keras.utils.set_random_seed(1)
    model = models.CausalLM(tiny(family, **EVERYTHING, dtype=policy))
    ids = token_ids(4, 7)
    logits = model(as_inputs(ids), training=True)
    assert logits.dtype == "float32"
    model.compile(optimizer="adam", jit_compile=jit_compile)
    before = [weight.numpy() for weight in model.trainable_weights]
    loss = model.train_on_batch(as_inputs(ids), token_ids(4, 7))
    assert np.all(np.isfinite(loss))
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.any(weight.numpy() != old), weight.path


# === State from window to window ===


@pytest.mark.parametrize("family", ["rnn", "gru", "lstm"])
def test_a_small_vocabulary_is_looked_up_with_equal_gradients(family, monkeypatch):
    backbone = tiny(family)
    inputs = as_inputs(token_ids(3, 20))

    def states_and_gradients():
        with tf.GradientTape() as tape:
            states = backbone(inputs, training=True)
            loss = tf.reduce_mean(tf.sin(states))
        variables = [weight.value for weight in backbone.trainable_weights]
        gradients = tape.gradient(loss, variables)
        return states, [tf.convert_to_tensor(gradient) for gradient in gradients]

    looked_up = states_and_gradients()
    monkeypatch.setattr(recurrent, "_SMALL_VOCABULARY", VOCABULARY - 1)
    keras.tree.map_structure(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6),
        looked_up,
        states_and_gradients(),
    )


def stateful(family, batch_size=BATCH, **hyperparameters):
    keras.utils.set_random_seed(4)
    backbone = tiny(family, **hyperparameters)
    # Larger than at first, so that the past is seen.
    for layer in backbone.recurrent_layers:
        layer.recurrent_kernel.assign(layer.recurrent_kernel * 1.5)
    return models.CausalLM(backbone), models.StatefulNetwork(backbone, batch_size)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("family", PAIRS)
def test_two_windows_with_carried_state_equal_one_of_both(family, training):
    model, network = stateful(family)
    ids = token_ids(BATCH, 12)
    expected = model(as_inputs(ids))
    first = network(as_inputs(ids[:, :6]), training=training)
    second = network(as_inputs(ids[:, 6:]), training=training)
    np.testing.assert_allclose(first, expected[:, :6], atol=1e-5)
    np.testing.assert_allclose(second, expected[:, 6:], atol=1e-5)
    without_past = model(as_inputs(ids[:, 6:]))
    assert np.abs(second[:, 0] - without_past[:, 0]).max() > 1e-3


def test_the_first_window_is_dropped_out_as_the_model_drops_out():
    model, network = stateful("gru", **EVERYTHING)
    seeds = [w for w in network.backbone.variables if "seed" in w.path]
    before = [seed.numpy() for seed in seeds]
    ids = token_ids(BATCH, 6)
    expected = model(as_inputs(ids), training=True)
    for seed, value in zip(seeds, before, strict=True):
        seed.assign(value)
    logits = network(as_inputs(ids), training=True)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.abs(logits - model(as_inputs(ids))).max() > 1e-4


def test_the_model_itself_remembers_nothing():
    model, network = stateful("lstm")
    ids = token_ids(BATCH, 6)
    expected = model(as_inputs(ids))
    network(as_inputs(ids))
    np.testing.assert_array_equal(model(as_inputs(ids)), expected)


def test_resetting_forgets_and_training_leaves_evaluation_alone():
    _, network = stateful("gru")
    ids = token_ids(BATCH, 6)
    expected = network(as_inputs(ids))
    assert np.abs(network(as_inputs(ids)) - expected).max() > 1e-3
    network.reset_state()
    network(as_inputs(ids), training=True)
    np.testing.assert_array_equal(network(as_inputs(ids)), expected)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_evaluation_by_windows_is_that_of_the_whole_row(jit_compile):
    model, network = stateful("lstm")
    rows = token_ids(BATCH, 13)
    losses = losses_of(model, rows)
    x = np.concatenate([rows[:, i : i + 4] for i in (0, 4, 8)])
    y = np.concatenate([rows[:, i + 1 : i + 5] for i in (0, 4, 8)])
    network.compile(loss=crossentropy(), jit_compile=jit_compile)
    for _ in range(2):  # the second does not go on from the first
        loss = network.evaluate(as_inputs(x), y, batch_size=BATCH, verbose=0)
        np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_carries_state_within_an_epoch_and_forgets_after_it(jit_compile):
    model, network = stateful("gru")
    rows = token_ids(BATCH, 9)
    losses = losses_of(model, rows)
    x = np.concatenate([rows[:, :4], rows[:, 4:8]])
    y = np.concatenate([rows[:, 1:5], rows[:, 5:]])
    network.compile(
        # Nothing is learned, so that the loss is that of the first weights.
        optimizer=keras.optimizers.SGD(0.0),
        loss=crossentropy(),
        jit_compile=jit_compile,
    )
    history = network.fit(
        as_inputs(x),
        y,
        validation_data=(as_inputs(x), y),
        batch_size=BATCH,
        epochs=2,
        shuffle=False,
        verbose=0,
    ).history
    expected = np.full(2, np.mean(losses))
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(history["val_loss"], expected, rtol=1e-5)


def test_no_gradient_flows_into_the_window_before():
    _, network = stateful("rnn")
    ids = token_ids(BATCH, 12)
    embeddings = network.backbone.token_embedding.embeddings.value

    with tf.GradientTape() as tape:
        network(as_inputs(ids[:, :6]), training=True)
        loss = tf.reduce_sum(network(as_inputs(ids[:, 6:]), training=True) ** 2)
    gradient = tf.convert_to_tensor(tape.gradient(loss, embeddings))

    network.reset_state()
    network(as_inputs(ids[:, :6]), training=True)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(as_inputs(ids[:, 6:]), training=True) ** 2)
    expected = tf.convert_to_tensor(tape.gradient(loss, embeddings))
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_training_the_network_trains_the_model():
    model, network = stateful("rnn")
    ids = token_ids(BATCH, 6)
    before = model(as_inputs(ids))
    network.compile(optimizer=keras.optimizers.Adam(0.1), loss=crossentropy())
    network.fit(as_inputs(ids), ids, batch_size=BATCH, verbose=0)
    assert np.abs(model(as_inputs(ids)) - before).max() > 1e-2
    trainable = {id(weight) for weight in network.trainable_weights}
    assert trainable == {id(weight) for weight in model.trainable_weights}


def test_another_number_of_rows_is_an_error():
    _, network = stateful("rnn", batch_size=4)
    with pytest.raises(ValueError, match=r"`batch_size` rows, 4. .* shape=\(3, 6\)"):
        network(as_inputs(token_ids(3, 6)))


@pytest.mark.parametrize(("size", "batch_size"), [(41, 3), (38, 3), (9, 4), (2, 1)])
def test_contiguous_windows_go_on_row_by_row_and_lose_no_token(size, batch_size):
    ids = np.arange(100, 100 + size)
    x, y, sample_weight = models.contiguous_windows(ids, batch_size, 4)
    np.testing.assert_array_equal(np.sort(y[sample_weight > 0]), ids[1:])
    np.testing.assert_array_equal(x["padding_mask"], x["token_ids"] > 0)
    rows = x["token_ids"].reshape(-1, batch_size, 4).swapaxes(0, 1).ravel()
    np.testing.assert_array_equal(rows[: size - 1], ids[:-1])
    following = y.reshape(-1, batch_size, 4).swapaxes(0, 1).ravel()
    np.testing.assert_array_equal(following[: size - 1], ids[1:])


def test_a_text_in_contiguous_windows_has_the_loss_of_its_streams():
    model, network = stateful("lstm", batch_size=2)
    ids = token_ids(1, 29)[0]
    x, y, sample_weight = models.contiguous_windows(ids, 2, 4)
    network.compile(weighted_metrics=[crossentropy_metric()], loss=crossentropy())
    _, loss = network.evaluate(
        x, y, batch_size=2, sample_weight=sample_weight, verbose=0
    )
    # 28 targets are 7 windows: 4 in the first row, 3 in the second.
    streams = [ids[None, :17], ids[None, 16:]]
    losses = np.concatenate([losses_of(model, stream)[0] for stream in streams])
    assert len(losses) == 28
    np.testing.assert_allclose(loss, losses.mean(), rtol=1e-5)


def losses_of(model, rows):
    ids = tf.constant(rows[:, :-1])
    return model.score(ids, scoring_mode="loss", target_ids=rows[:, 1:])


def crossentropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def crossentropy_metric():
    return keras.metrics.SparseCategoricalCrossentropy(from_logits=True)


# --- Dropout of whole tokens ---


def test_dropped_tokens_leave_no_trace_in_training():
    backbone = models.LSTMBackbone(40, hidden_dim=8, embedding_dropout=0.5)
    token_ids = np.full((1, 3), 7)
    inputs = {"token_ids": token_ids, "padding_mask": np.ones((1, 3), "bool")}
    outputs = [np.array(backbone(inputs, training=True)) for _ in range(20)]
    silent = [bool(np.all(output == 0)) for output in outputs]
    assert set(silent) == {True, False}
    assert np.any(backbone(inputs, training=False))
