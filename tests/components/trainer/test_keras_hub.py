"""KerasHub's models go through the components as ours do."""

from __future__ import annotations

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import unchecked
from langzoo.components.errors import InputError
from langzoo.components.source import preset_hash
from langzoo.components.tokenizer_trainer import executor
from langzoo.components.tokenizer_trainer.component import TokenizerTrainer
from langzoo.components.trainer import training
from langzoo.components.trainer.networks import network_of
from langzoo.components.trainer.rows.packing import make_windows
from langzoo.components.trainer.rows.windows import TokenWindows
from langzoo.components.trainer.settings import TrainerSettings
from langzoo.components.types import Tokenizer
from langzoo.models import build_causal_lm, train_sentencepiece
from langzoo.serving.export.saved_model import export_causal_lm
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

CONTEXT = 16
SIGNATURES = {
    *("serving_default", "score", "token_scores", "token_alternatives"),
    *("generate", "beam_search", "evaluate", "embed", "cache_scores"),
    *("tokenize", "detokenize", "model_info", "id_alternatives"),
}


@pytest.fixture(params=["llama_preset", "gpt2_preset"])
def preset(request):
    return request.getfixturevalue(request.param)


def take_tokenizer(preset, folder):
    """Runs TokenizerTrainer's executor; gives the tokenizer that Transform reads."""
    component = TokenizerTrainer(
        Channel(type=standard_artifacts.Examples), type="preset", preset=preset
    )
    output = Tokenizer()
    output.uri = str(folder)
    executor.Executor().Do({}, {"tokenizer": [output]}, component.exec_properties)
    return keras_hub.tokenizers.Tokenizer.from_preset(str(folder))


def test_exported_scores_of_pretrained_weights_are_those_of_keras_hub(preset, tmp_path):
    model = build_causal_lm(
        "keras_hub",
        take_tokenizer(preset, tmp_path / "tokenizer"),
        CONTEXT,
        preset=preset,
        pretrained=True,
    )
    export_causal_lm(model, tmp_path / "export")
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    assert set(loaded.signatures) == SIGNATURES
    texts = ["the value of a name", "", "An import statement!"]
    scores = loaded.signatures["token_scores"](text=tf.constant(texts))

    theirs = keras_hub.models.CausalLM.from_preset(preset)
    x, y, real = theirs.preprocessor(texts, sequence_length=CONTEXT)
    losses = theirs.score(
        x["token_ids"], x["padding_mask"], scoring_mode="loss", target_ids=y
    )
    lengths = np.array(real).sum(axis=1)
    assert lengths.max() < CONTEXT
    np.testing.assert_array_equal(scores["length"], lengths)
    width = lengths.max()
    np.testing.assert_allclose(
        scores["log_probability"],
        np.where(real, -np.array(losses), 0)[:, :width],
        atol=1e-4,
    )


@pytest.fixture(scope="module")
def learned(topics):
    return train_sentencepiece(topics, vocabulary_size=400, model_type="bpe", seed=0)


@pytest.fixture(scope="module")
def stream(learned, topics, tmp_path_factory):
    path = tmp_path_factory.mktemp("windows") / "stream"
    TokenWindows.write(
        path,
        [np.array(learned(text)) for text in topics[:4]],
        vocabulary_size=learned.vocabulary_size(),
        start_id=learned.start_token_id,
        end_id=learned.end_token_id,
        pad_id=learned.pad_token_id,
    )
    return path


@pytest.fixture(scope="module")
def windows(stream):
    return TokenWindows(stream, CONTEXT)


def train(preset, learned, windows, folder, steps):
    keras.utils.set_random_seed(0)
    model = build_causal_lm("keras_hub", learned, CONTEXT, preset=preset)
    settings = TrainerSettings(
        steps=steps, batch_size=8, learning_rate=1e-2, warmup_steps=2
    ).of_family("keras_hub")
    network = network_of(model, settings)
    result = training.train(network, windows, windows, settings, str(folder))
    return model, result


def test_an_architecture_learns_with_a_learned_tokenizer_and_is_exported(
    llama_preset, learned, windows, tmp_path
):
    model, result = train(llama_preset, learned, windows, tmp_path / "some", steps=60)
    assert result.history[0]["loss"] == pytest.approx(np.log(400), rel=0.05)
    assert result.eval_loss < result.history[0]["loss"] - 0.5
    unchecked.export(model, tmp_path / "export", ["score"])
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    nll = loaded.signatures["score"](text=tf.constant(["a name"]))["nll"]
    np.testing.assert_allclose(nll[0], -tf.reduce_sum(model.score("a name")), rtol=1e-4)


def test_an_architecture_learns_from_rows_of_several_lengths(
    gpt2_preset, learned, stream, tmp_path
):
    lines = make_windows(stream, CONTEXT, "lines")
    _, result = train(gpt2_preset, learned, lines, tmp_path, steps=20)
    assert result.eval_loss < np.log(400) - 0.2


def test_a_preset_that_cannot_be_loaded_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"type preset: model\.preset 'absent_en'"):
        take_tokenizer("absent_en", tmp_path)


def test_a_changed_preset_is_not_served_from_the_cache(tmp_path):
    file = tmp_path / "config.json"
    file.write_text("{}")
    before = preset_hash(str(tmp_path))
    assert preset_hash(str(tmp_path)) == before
    file.write_text("{ }")
    assert preset_hash(str(tmp_path)) != before
    assert preset_hash("gpt2_base_en") == preset_hash("") == ""
