"""Presets build, and the formulas for their sizes hold."""

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from keras_hub.src.utils.preset_utils import list_subclasses
from langzoo import models
from langzoo.models import zoo
from langzoo.models.families import FAMILIES, presets
from langzoo.models.families.bert.family import ARCHITECTURES as BERT_ARCHITECTURES
from langzoo.models.families.encoder_decoder.family import ARCHITECTURES as PAIRS
from langzoo.models.families.transformer.family import ARCHITECTURES
from langzoo.models.references import load
from langzoo.models.tasks import TASKS
from tiny_models import VARIANTS

PRESETS = presets.PRESETS
SMALL = 60
CASES = {
    **{family: (family, {}) for family in zoo.FAMILIES if family != "ngram"},
    "mixture": ("mixture", {"members": [{"family": "gated_conv"}, {"family": "tcn"}]}),
    "gpt2": ("transformer", ARCHITECTURES["gpt2"]),
    "llama": (
        "transformer",
        {**ARCHITECTURES["llama"], "num_key_value_heads": 2},
    ),
    "paper": ("bert", BERT_ARCHITECTURES["bert"]),
    "layer_norm": ("transformer", {"normalization": "layer_norm", "num_layers": 1}),
    "lstm_stack": (
        "lstm",
        {"num_layers": 3, "embedding_dim": 24, "tie_embeddings": False},
    ),
    "gru_plain": ("gru", {"num_layers": 2, "normalize": False}),
    "gated_conv_bottleneck": ("gated_conv", {"bottleneck_dim": 24, "kernel_size": 5}),
    "gated_conv_options": VARIANTS["gated_conv_bottleneck"],
    "transformer_options": VARIANTS["transformer_options"],
    "gru_options": VARIANTS["plain_gru"],
    "bart": (
        "encoder_decoder",
        {**PAIRS["bart"], "num_encoder_layers": 1, "share_embeddings": False},
    ),
    "encoder_decoder_options": (
        "encoder_decoder",
        {"num_key_value_heads": 2, "tie_embeddings": False, "source_context_length": 9},
    ),
    "lstm_with_attention": (
        "rnn_attention",
        {"cell": "lstm", "num_decoder_layers": 2, "embedding_dim": 24},
    ),
    "additive_attention": (
        "rnn_attention",
        {"attention": "additive", "input_feeding": True, "share_embeddings": False},
    ),
    "convolutional_pair": (
        "conv_s2s",
        {"kernel_size": 5, "num_encoder_layers": 2, "share_embeddings": False},
    ),
    "tcn_options": ("tcn", {"filters": 48, "ngram_embeddings": 2}),
    "tcn_filters": ("tcn", {"filters": 48, "num_layers": 3}),
    "tcn_single": ("tcn", {"filters": 48, "num_layers": 1}),
}

RECURRENT = ("rnn", "gru", "lstm", "rnn_attention")


def backbone(family, context_length, hyperparameters):
    return zoo.FAMILIES[family](
        vocabulary_size=SMALL, max_sequence_length=context_length, **hyperparameters
    )


def size(family, vocabulary_size, context_length, hyperparameters):
    settings = FAMILIES[family].settings_of(**hyperparameters)
    settings = settings.model_copy(update={"context_length": context_length})
    return settings.size(vocabulary_size)


@pytest.mark.parametrize("case", CASES)
def test_the_formula_for_parameters_counts_those_of_a_model(case):
    family, hyperparameters = CASES[case]
    expected = backbone(family, 33, hyperparameters).count_params()
    assert size(family, SMALL, 33, hyperparameters).parameters == expected


def multiply_adds(graph):
    """Of all matrix products of a graph of known shapes."""
    total = 0
    for op in graph.get_operations():
        if op.type in ("MatMul", "BatchMatMulV2"):
            transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            inner = op.inputs[0].shape[-2 if transposed else -1]
            total += int(np.prod(op.outputs[0].shape)) * inner
    return total


@pytest.mark.parametrize(
    "case", [case for case in CASES if CASES[case][0] not in RECURRENT]
)
def test_the_formula_for_operations_counts_those_of_the_graph(case):
    family, hyperparameters = CASES[case]
    length = 9
    reads_a_source = FAMILIES[family].reads_a_source
    cls = models.SeqToSeqLM if reads_a_source else models.CausalLM
    model = cls(backbone(family, length, hyperparameters), compile=False)
    spec = {
        name: tf.TensorSpec([1, length], tensor.dtype)
        for name, tensor in model.input.items()
    }
    graph = tf.function(lambda x: model(x)).get_concrete_function(spec).graph
    expected = size(family, SMALL, length, hyperparameters).flops_per_token
    assert 2 * multiply_adds(graph) == length * expected


@pytest.mark.parametrize(
    ("family", "hyperparameters", "by_hand"),
    [
        # Queries, keys, values, their output; two in, one out; scores and values for
        # 10 positions; logits.
        (
            "transformer",
            {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12},
            2 * (2 * (4 * 8 * 8 + 3 * 8 * 12 + 2 * 10 * 8) + 60 * 8),
        ),
        # As many gates, each from the input and from the state; logits.
        ("rnn", {"num_layers": 2, "hidden_dim": 8}, 2 * (2 * 2 * 8 * 8 + 60 * 8)),
        ("gru", {"num_layers": 2, "hidden_dim": 8}, 2 * (2 * 3 * 2 * 64 + 60 * 8)),
        ("lstm", {"num_layers": 2, "hidden_dim": 8}, 2 * (2 * 4 * 2 * 64 + 60 * 8)),
        # Values and gates of two blocks, from 4 positions; logits.
        ("gated_conv", {"num_layers": 2, "hidden_dim": 8}, 4 * 2 * 4 * 64 + 960),
        # Two convolutions a block, from 3 positions; logits.
        ("tcn", {"num_layers": 2, "hidden_dim": 8}, 2 * 2 * 2 * 3 * 64 + 960),
    ],
)
def test_operations_are_those_counted_by_hand(family, hyperparameters, by_hand):
    assert size(family, 60, 10, hyperparameters).flops_per_token == by_hand


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # As counted from the published weights, for GPT-2 and Llama 2 those in
        # KerasHub's and Hugging Face's model cards.
        ("gpt2_base", 124_439_808),
        ("gpt2_medium", 354_823_168),
        ("gpt2_large", 774_030_080),
        ("gpt2_extra_large", 1_557_611_200),
        ("tinyllama_1b", 1_100_048_384),
        ("llama2_7b", 6_738_415_616),
        ("llama3_8b", 8_030_261_248),
    ],
)
def test_presets_have_the_parameters_of_the_models_they_name(name, parameters):
    assert PRESETS[name].size.parameters == parameters


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_s_hyperparameters_are_those_of_its_family(name):
    preset = PRESETS[name]
    assert set(preset.hyperparameters) <= set(zoo.hyperparameters(preset.family))
    if preset.family == "ngram":
        assert preset.size is None
    else:
        assert preset.size.flops_per_token > preset.size.parameters


def test_a_mid_size_preset_builds_with_the_parameters_of_the_table():
    preset = PRESETS["llama_small"]
    tokenizer = models.ByteTokenizer()
    model = models.build_causal_lm("llama_small", tokenizer)
    bytes_ = preset._replace(vocabulary_size=tokenizer.vocabulary_size())
    assert model.count_params() == bytes_.size.parameters
    assert model.context_length == preset.context_length


def test_what_is_given_goes_before_the_preset():
    model = models.build_causal_lm(
        "gpt2_tiny", models.ByteTokenizer(), 24, num_layers=1, dropout=0.1
    )
    assert model.context_length == 24
    config = model.backbone.get_config()
    assert (config["num_layers"], config["dropout"]) == (1, 0.1)
    assert (config["positions"], config["num_heads"]) == ("learned", 4)


def test_a_family_without_a_context_length_is_an_error():
    with pytest.raises(ValueError, match="Received: context_length=None"):
        models.build_causal_lm("lstm", models.ByteTokenizer())


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"preset": "lstm_tinny"}, "did you mean lstm_tiny?"),
        ({"preset": "x"}, "known: ngram_base, rnn_tiny"),
        ({"preset": "lstm_tiny", "family": "lstm"}, "either family 'lstm' or preset"),
    ],
)
def test_a_wrong_preset_is_an_error_that_helps(model, said):
    with pytest.raises(ValueError, match=said):
        presets.resolved(model)


BASES = {
    "causal_lm": keras_hub.models.CausalLM,
    "seq_to_seq_lm": keras_hub.models.Seq2SeqLM,
}
CLASSES = {
    (family, task): load(FAMILIES[family].tasks.get(task, TASKS[task].model))
    for family in zoo.FAMILIES
    for task in BASES
    if FAMILIES[family].can(TASKS[task])
}


@pytest.mark.parametrize(("family", "task"), CLASSES)
def test_a_backbone_has_one_class_of_a_task(family, task):
    # KerasHub takes any class that goes with a preset's backbone: where there are
    # several, the preset must say which, so all are kinds of one.
    cls = CLASSES[family, task]
    own = cls.backbone_cls
    backbone = own if isinstance(own, type) else zoo.FAMILIES[family]
    every = list_subclasses(BASES[task])
    suited = [one for one in every if one.backbone_cls == backbone]
    assert cls in suited
    assert any(all(issubclass(one, kind) for one in suited) for kind in suited)
