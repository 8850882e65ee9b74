"""A family of the user's own, by the contract that ours follow.

That its backbone does what a family's must is in `test_families.py` and, of rows with
several documents, in `tests/models/tasks/test_packed.py`.
"""

from __future__ import annotations

import sys

import keras
import numpy as np
import pytest
from langzoo import models
from langzoo.components.source import source_hash
from langzoo.models.families import family_of
from langzoo.models.families.presets import resolved
from own_family import write

CONTEXT = 24


@pytest.fixture(scope="module")
def model(own_family, shakespeare):
    keras.utils.set_random_seed(0)
    model = models.build_causal_lm(
        own_family, models.ByteTokenizer(), CONTEXT, hidden_dim=16
    )
    model.fit(shakespeare, batch_size=8, epochs=2, verbose=0)
    return model


def test_it_learns_with_its_own_recipe(model, own_family, shakespeare):
    untrained = models.build_causal_lm(
        own_family, models.ByteTokenizer(), CONTEXT, hidden_dim=16
    )
    texts = shakespeare[:4]
    assert sum(map(np.sum, model.score(texts))) > sum(
        map(np.sum, untrained.score(texts))
    )
    recipe = family_of(own_family).recipe
    assert float(untrained.optimizer.learning_rate) <= recipe.learning_rate


def test_it_has_the_size_of_its_formula(model, own_family):
    settings = family_of(own_family).settings_of(hidden_dim=16)
    assert settings.size(260).parameters == model.count_params()


def test_it_is_saved_as_a_preset_and_comes_back(model, tmp_path):
    model.save_to_preset(str(tmp_path))
    loaded = models.CausalLM.from_preset(str(tmp_path))
    assert type(loaded.backbone) is type(model.backbone)
    np.testing.assert_array_equal(loaded.score("To be"), model.score("To be"))


def test_another_model_begins_with_its_weights(model, own_family, tmp_path):
    model.save_to_preset(str(tmp_path))
    given = {"family": own_family, "initial_weights": str(tmp_path), "dropout": 0.3}
    found = resolved(given)
    assert (found["family"], found["hidden_dim"]) == (own_family, 16)
    again = models.build_causal_lm(tokenizer=models.ByteTokenizer(), **found)
    assert again.backbone.dropout == 0.3
    np.testing.assert_array_equal(again.score("To be"), model.score("To be"))


def test_it_carries_its_state_from_batch_to_batch(model):
    ids = np.random.default_rng(0).integers(4, 200, (2, 12))

    def inputs(ids):
        return {"token_ids": ids, "padding_mask": np.ones_like(ids, bool)}

    network = models.StatefulNetwork(model.backbone, batch_size=2)
    expected = model(inputs(ids))
    np.testing.assert_allclose(network(inputs(ids[:, :5])), expected[:, :5], atol=1e-5)
    np.testing.assert_allclose(network(inputs(ids[:, 5:])), expected[:, 5:], atol=1e-5)


def test_an_unknown_hyperparameter_is_named(own_family):
    with pytest.raises(ValueError, match=r"num_layers.*Received: unknown=\['width'\]"):
        models.build_causal_lm(own_family, models.ByteTokenizer(), CONTEXT, width=8)


def test_its_source_changes_the_fingerprint(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("mypackage")]:
        monkeypatch.delitem(sys.modules, name)
    package = write(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = source_hash("mypackage.mingru:FAMILY")
    # Named in the record only, and imported when a model is built.
    with open(package / "backbone.py", "a") as file:
        file.write("# An edit.\n")
    assert source_hash("mypackage.mingru:FAMILY") != before
