"""Every family keeps the task's contract."""

import contextlib

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models.backbone import served_graphs
from langzoo.serving.export.signatures import causal_lm
from tiny_models import GRADIENTS, KINDS, TINY, VARIANTS

CONTEXT = 24
SAMPLERS = {
    "greedy": keras_hub.samplers.GreedySampler,
    "top_k": keras_hub.samplers.TopKSampler,
    "top_p": keras_hub.samplers.TopPSampler,
    "random": keras_hub.samplers.RandomSampler,
    "beam": lambda: keras_hub.samplers.BeamSampler(num_beams=3),
    "contrastive": lambda: keras_hub.samplers.ContrastiveSampler(k=3, alpha=0.4),
}


@pytest.fixture(scope="module", params=[*VARIANTS, "own"])
def model(request, shakespeare, own_family):
    """A tiny model of each family, trained for a moment so that it has opinions.

    One of them is no family of the zoo, but a package of the user's own. What options
    do to learning, the families' own tests show: here their weights are drawn.
    """
    own = (own_family, {"hidden_dim": 16})
    family, sizes = VARIANTS.get(request.param, own)
    keras.utils.set_random_seed(3)
    model = models.build_causal_lm(family, models.ByteTokenizer(), CONTEXT, **sizes)
    if request.param not in [*TINY, "own"] and family in GRADIENTS:
        generator = np.random.default_rng(3)
        for weight in model.trainable_weights:
            weight.assign_add(generator.normal(scale=0.2, size=weight.shape))
        return model
    # Without XLA; the tests of the Trainer compile.
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    losses = model.fit(shakespeare, batch_size=8, epochs=4, verbose=0).history["loss"]
    # The n-gram model counts once.
    assert len(losses) == 1 or losses[-1] < losses[0] - 0.5
    return model


# For what is written once, over what each family defines.
of_each_kind = pytest.mark.parametrize("model", KINDS, indirect=True)


def features(model, texts, length=CONTEXT):
    return model.preprocessor.generate_preprocess(texts, sequence_length=length)


def logits_of(model, token_ids):
    token_ids = tf.convert_to_tensor(token_ids)
    mask = tf.ones_like(token_ids, tf.bool)
    return model({"token_ids": token_ids, "padding_mask": mask}).numpy()


def test_logits_have_the_shape_and_type_of_the_contract(model):
    logits = model(features(model, ["From fairest", "To"]))
    assert logits.shape == (2, CONTEXT, 260)
    assert logits.dtype == tf.float32
    assert model.context_length == CONTEXT
    assert model.backbone.vocabulary_size == 260


def test_no_output_depends_on_a_later_token(model):
    token_ids = np.array(features(model, ["From fairest creatures we"])["token_ids"])
    [before] = logits_of(model, token_ids)
    position = np.arange(CONTEXT)[1:, np.newaxis]
    changed = (token_ids + 7 * (np.arange(CONTEXT) >= position)) % 260
    for row, after in enumerate(logits_of(model, changed), start=1):
        np.testing.assert_allclose(after[:row], before[:row], atol=1e-5)
        assert np.abs(after[row] - before[row]).max() > 1e-4


def test_outputs_at_real_positions_do_not_depend_on_padding(model):
    short = features(model, ["To be"], length=8)
    long = features(model, ["To be"], length=CONTEXT)
    np.testing.assert_allclose(model(long)[:, :6], model(short)[:, :6], atol=1e-5)


def greedy_by_recomputation(model, inputs):
    """Greedy search by calling the whole model anew for every token."""
    token_ids = np.array(inputs["token_ids"])
    mask = np.array(inputs["padding_mask"])
    whole = tf.function(
        lambda ids: model(
            {"token_ids": ids, "padding_mask": tf.ones_like(ids, tf.bool)}
        )
    )
    for index in range(mask.sum(axis=1).min(), token_ids.shape[1]):
        # No output depends on what is to come, and one shape is one graph.
        choice = np.argmax(whole(token_ids)[:, index - 1], axis=-1)
        token_ids[:, index] = np.where(mask[:, index], token_ids[:, index], choice)
    return token_ids


def assert_generation_equals_recomputation(model, jit_compile):
    prompts = ["From fairest", "To", "", "When forty winters"]
    inputs = features(model, prompts)
    expected = greedy_by_recomputation(model, inputs)
    assert len(np.unique(expected[:, 1:])) > 5  # not one token over and over
    model.compile(sampler="greedy", jit_compile=jit_compile)
    tokens = model.make_generate_function()(inputs)["token_ids"]
    np.testing.assert_array_equal(tokens, expected)


def test_cached_generation_equals_recomputation_for_unequal_prompts(model):
    assert_generation_equals_recomputation(model, jit_compile=False)


@of_each_kind
def test_cached_generation_with_xla_equals_recomputation(model):
    assert_generation_equals_recomputation(model, jit_compile=True)


def test_cached_logits_equal_those_of_the_whole_model(model):
    token_ids = features(model, ["From fairest", "When forty winters"])["token_ids"]
    expected = logits_of(model, token_ids)
    cache = model.prefill(token_ids, 5)
    for index in range(5, CONTEXT):
        column = token_ids[:, index : index + 1]
        logits, hidden_states, cache = model.call_with_cache(column, cache, index)
        assert logits.shape == (2, 1, 260)
        assert hidden_states.shape == (2, 1, model.backbone.output.shape[-1])
        # Log-probabilities of what cannot be are far from 0.
        np.testing.assert_allclose(
            logits[:, 0], expected[:, index], rtol=1e-5, atol=5e-5
        )


@pytest.mark.parametrize("length", [0, 1, 2, 7, CONTEXT])
def test_prefill_ignores_columns_from_length_on(model, length):
    token_ids = np.array(features(model, ["From fairest creatures"])["token_ids"])
    changed = token_ids.copy()
    changed[:, length:] = 9
    expected = keras.tree.flatten(model.prefill(tf.constant(token_ids), length))
    caches = keras.tree.flatten(model.prefill(tf.constant(changed), length))
    for cache, other in zip(caches, expected, strict=True):
        np.testing.assert_array_equal(cache, other)
    # Which a served graph therefore leaves out.
    with served_graphs():
        caches = keras.tree.flatten(model.prefill(tf.constant(token_ids), length))
    for cache, other in zip(caches, expected, strict=True):
        np.testing.assert_allclose(cache, other, atol=2e-6)


def test_prefill_and_steps_run_in_a_loop_of_a_graph_with_unknown_shapes(model):
    assert_a_loop_gives_the_logits(model, served_graphs)


@of_each_kind
def test_prefill_and_steps_run_in_a_loop_of_a_graph_that_is_not_served(model):
    assert_a_loop_gives_the_logits(model, contextlib.nullcontext)


def assert_a_loop_gives_the_logits(model, graphs):
    token_ids = features(model, ["From fairest", "To be"])["token_ids"]

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def last_logits(token_ids):
        def body(index, cache, logits):
            logits, _, cache = model.call_with_cache(
                token_ids[:, index, None], cache, index
            )
            return index + 1, cache, logits[:, 0]

        start = tf.constant(3)
        logits = tf.zeros([tf.shape(token_ids)[0], 260])
        return tf.while_loop(
            lambda index, *_: index < tf.shape(token_ids)[1],
            body,
            (start, model.prefill(token_ids, start), logits),
        )[-1]

    expected = logits_of(model, token_ids)[:, -1]
    with graphs():
        np.testing.assert_allclose(last_logits(token_ids), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("model", "sampler"),
    # Those that look at a cache more than once for a token are tried with each.
    [(kind, sampler) for kind in KINDS for sampler in ("beam", "contrastive")]
    + [
        ("lstm", sampler)
        for sampler in SAMPLERS
        if sampler not in ("beam", "contrastive")
    ],
    indirect=["model"],
)
def test_every_sampler_continues_the_prompts(model, sampler):
    model.compile(sampler=SAMPLERS[sampler]())
    prompts = ["From fairest", "To"]
    texts = model.generate(prompts, max_length=20, stop_token_ids=None)
    for prompt, text in zip(prompts, texts, strict=True):
        assert text.startswith(prompt)
        assert text != prompt


@of_each_kind
def test_generation_stops_at_a_stop_token(model):
    model.compile(sampler="greedy")
    inputs = features(model, ["From fairest"])
    free = model.make_generate_function()(inputs)["token_ids"][0]
    stop = int(free[15])
    first = 13 + free[13:].numpy().tolist().index(stop)
    outputs = model.make_generate_function()(inputs, stop_token_ids=[stop])
    mask = outputs["padding_mask"][0].numpy()
    np.testing.assert_array_equal(mask, np.arange(CONTEXT) <= first)


def test_a_preset_gives_the_same_logits(model, tmp_path, shakespeare):
    model.save_to_preset(str(tmp_path))
    inputs = features(model, shakespeare[:3])
    expected = model(inputs)
    for cls in (models.CausalLM, keras_hub.models.CausalLM):
        loaded = cls.from_preset(str(tmp_path))
        assert type(loaded) is type(model)
        np.testing.assert_array_equal(loaded(inputs), expected)
        assert loaded.context_length == CONTEXT
    parts = [
        (keras_hub.models.Backbone, type(model.backbone)),
        (keras_hub.models.CausalLMPreprocessor, models.CausalLMPreprocessor),
        (keras_hub.tokenizers.Tokenizer, models.ByteTokenizer),
    ]
    for cls, expected_cls in parts:
        assert type(cls.from_preset(str(tmp_path))) is expected_cls


def test_the_configuration_round_trips(model):
    backbone = type(model.backbone).from_config(model.backbone.get_config())
    assert backbone.get_config() == model.backbone.get_config()
    copy = type(model).from_config(model.get_config())
    assert copy.get_config() == model.get_config()


def test_scores_are_the_cross_entropy_of_the_logits(model):
    token_ids = features(model, ["From fairest creatures"])["token_ids"]
    logits = logits_of(model, token_ids)[0, :-1].astype("float64")
    targets = np.array(token_ids)[:, 1:]
    log_sums = np.log(np.exp(logits).sum(axis=-1))
    expected = log_sums - logits[np.arange(CONTEXT - 1), targets[0]]
    losses = model.score(token_ids[:, :-1], scoring_mode="loss", target_ids=targets)
    np.testing.assert_allclose(losses[0], expected, rtol=1e-4, atol=1e-5)


@of_each_kind
def test_scores_of_texts_are_those_of_the_signature_of_an_export(model, shakespeare):
    texts = ["To be", "", "naïve €", " ".join(shakespeare[:4])]  # the last is too long
    scores = model.score(texts)
    served = causal_lm.build(model, stride=CONTEXT // 2, max_new_tokens=4)
    expected = served.functions["score"](tf.constant(texts))
    np.testing.assert_array_equal(scores.row_lengths(), expected["tokens"])
    nll = -tf.reduce_sum(scores, axis=1)
    np.testing.assert_allclose(nll, expected["nll"], rtol=1e-4)
    np.testing.assert_allclose(model.score(texts[0]), scores[0], atol=1e-5)


def test_scores_of_a_text_are_the_log_softmax_of_the_logits(model):
    ids = [2, *model.preprocessor.tokenizer("To be"), 3]
    logits = tf.nn.log_softmax(logits_of(model, [ids[:-1]])[0].astype("float64"))
    expected = logits.numpy()[np.arange(len(ids) - 1), ids[1:]]
    np.testing.assert_allclose(model.score("To be"), expected, atol=1e-4)


def test_the_loss_is_the_mean_over_the_real_tokens(model):
    texts = ["To be", "or not", ""]
    model.compile()
    loss = model.evaluate(texts, batch_size=3, verbose=0, return_dict=True)["loss"]
    scores = model.score(texts)
    assert loss == pytest.approx(-float(tf.reduce_mean(scores.flat_values)), rel=1e-4)


@pytest.mark.parametrize(
    ("family", "policy"),
    # The recurrent ones train in it with every option, in test_recurrent.py.
    [(family, "mixed_bfloat16") for family in GRADIENTS if family not in ("rnn", "gru")]
    + [("transformer", "mixed_float16")],
)
def test_mixed_precision_keeps_logits_in_float32(family, policy, shakespeare):
    model = models.build_causal_lm(
        family, models.ByteTokenizer(), CONTEXT, dtype=policy, **TINY[family]
    )
    assert model(features(model, ["From"])).dtype == tf.float32
    model.compile(sampler="greedy", jit_compile=False)
    loss = model.fit(shakespeare[:8], batch_size=4, verbose=0).history["loss"][0]
    assert np.isfinite(loss)
    assert model.generate("To", max_length=8).startswith("To")


@pytest.mark.parametrize("family", GRADIENTS)
def test_a_model_saves_and_runs_in_a_tf1_session(family, tmp_path):
    """The load that a model server makes."""
    model = models.build_causal_lm(
        family, models.ByteTokenizer(), CONTEXT, **TINY[family]
    )
    token_ids = np.array(features(model, ["From fairest", "To"])["token_ids"])

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def serve(token_ids):
        cache = model.prefill(token_ids, 5)
        logits, _, _ = model.call_with_cache(token_ids[:, 5, None], cache, 5)
        mask = tf.ones_like(token_ids, tf.bool)
        whole = model({"token_ids": token_ids, "padding_mask": mask})
        return {"whole": whole, "step": logits}

    module = tf.Module()
    module.variables_ = [variable.value for variable in model.variables]
    module.serve = serve
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": serve})
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))
        signature = graph.signature_def["serving_default"]
        outputs = session.run(
            {name: info.name for name, info in signature.outputs.items()},
            {signature.inputs["token_ids"].name: token_ids},
        )
    expected = logits_of(model, token_ids)
    np.testing.assert_allclose(outputs["whole"], expected, atol=2e-5)
    np.testing.assert_allclose(outputs["step"][:, 0], expected[:, 5], atol=2e-5)


@pytest.mark.usefixtures("no_collections")
def test_scores_follow_the_weights_and_variables_of_the_model(shakespeare):
    def nll():
        scores = model.score(shakespeare[:2])
        logits = logits_of(model, [[2, *model.preprocessor.tokenizer("To")]])
        expected = tf.nn.log_softmax(logits)[0, 0, 4 + ord("T")]
        np.testing.assert_allclose(model.score("To")[0], expected, atol=1e-4)
        return -float(tf.reduce_sum(scores))

    model = models.build_causal_lm(
        "transformer", models.ByteTokenizer(), CONTEXT, **TINY["transformer"]
    )
    untrained = nll()
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    model.fit(shakespeare, epochs=3, verbose=0)
    trained = nll()
    assert trained < untrained
    model.quantize("int8")
    assert 0 < abs(nll() - trained) < 0.1 * trained


def test_low_rank_changes_are_all_that_is_learned(shakespeare):
    model = models.build_causal_lm(
        "transformer", models.ByteTokenizer(), CONTEXT, **TINY["transformer"]
    )
    before = len(model.weights)
    model.backbone.enable_lora(2)
    assert len(model.trainable_weights) == 4  # two matrices for each of two layers
    assert len(model.weights) == before + 4
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    model.fit(shakespeare[:4], verbose=0)
    # Half of them begin as zeros.
    assert all(np.abs(weight).max() > 0 for weight in model.trainable_weights)


@pytest.mark.parametrize("family", ["rnn", "gru", "lstm", "tcn", "ngram"])
@pytest.mark.parametrize("names", [None, ["query_dense"]])
def test_low_rank_changes_that_would_change_nothing_are_an_error(family, names):
    model = models.build_causal_lm(
        family, models.ByteTokenizer(), CONTEXT, **TINY[family]
    )
    trained = len(model.trainable_weights)
    with pytest.raises(ValueError, match=r"LoRA must have layers of .*Backbone"):
        model.backbone.enable_lora(2, names)
    assert len(model.trainable_weights) == trained


def test_low_rank_changes_can_be_had_by_name():
    model = models.build_causal_lm("lstm", models.ByteTokenizer(), 8, hidden_dim=8)
    model.backbone.enable_lora(2, ["token_embedding"])
    assert len(model.trainable_weights) == 2
    with pytest.raises(ValueError, match=r"one of \['token_embedding'\].*'norm_0'"):
        model.backbone.enable_lora(2, ["token_embedding", "norm_0"])


@pytest.mark.usefixtures("no_collections")
def test_a_model_is_quantized_before_it_has_seen_a_text(shakespeare):
    scores = []
    for mode in (None, "int8"):
        keras.utils.set_random_seed(3)
        model = models.build_causal_lm(
            "transformer", models.ByteTokenizer(), CONTEXT, **TINY["transformer"]
        )
        if mode:
            model.quantize(mode)
        scores.append(np.concatenate(model.score(shakespeare[:2]).to_list()))
    exact, rounded = scores
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(rounded, exact, atol=0.2)


def test_texts_without_a_preprocessor_cannot_be_scored():
    model = models.CausalLM(models.LSTMBackbone(260, hidden_dim=8))
    with pytest.raises(ValueError, match="without a preprocessor"):
        model.score(["text"])


def test_a_stride_beyond_the_context_is_an_error():
    model = models.build_causal_lm("lstm", models.ByteTokenizer(), 8, hidden_dim=8)
    with pytest.raises(ValueError, match=r"context length, 8\. .* stride=9"):
        model.score(["text"], stride=9)


def test_an_unknown_family_is_an_error():
    with pytest.raises(ValueError, match="Received: family='mamba'"):
        models.build_causal_lm("mamba", models.ByteTokenizer(), 8)


def test_an_unknown_hyperparameter_is_an_error_that_names_those_there_are():
    with pytest.raises(ValueError, match=r"hidden_dim.*Received: unknown=\['width'\]"):
        models.build_causal_lm("lstm", models.ByteTokenizer(), 8, width=4)


def test_a_width_that_the_heads_do_not_divide_is_an_error():
    with pytest.raises(
        ValueError, match="hidden_dim 12 must be a multiple of twice num_heads 4"
    ):
        models.TransformerBackbone(vocabulary_size=10, hidden_dim=12, num_heads=4)
