"""Parts that are not ours, through the whole pipeline: family, optimizer, metric.

The family is a member of a mixture.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from langzoo.components.trainer import callbacks
from langzoo.models import CausalLM
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.kubeflow.compiler import compile_pipeline
from langzoo.pipelines.report.page import report_run
from langzoo.serving.client import Client
from langzoo.serving.server.process import running_server

PARTS = '''\
"""What langzoo does not have: an optimizer and a metric."""

import keras
from keras import ops
from langzoo.components.evaluator.measures.metric import Metric


class SignDescent(keras.optimizers.SGD):
    """Steps of one length for every weight."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(ops.sign(gradient), variable, learning_rate)


bits_per_word = Metric(
    "bits_per_word",
    unit="bits",
    better="lower",
    definition="What a word costs, spelled or not.",
    compute=lambda sums: (sums["nll"] + sums["spelling_nll"]) / sums["words"] / 0.6931,
)
'''


@pytest.fixture(scope="module")
def changes(own_family, tmp_path_factory):
    """Settings that name the parts, whose module is beside the family's package."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "myparts.py").write_text(PARTS)
    rule = {"metric": "myparts:bits_per_word", "max": 40.0}
    members = [{"family": own_family, "hidden_dim": 16}, {"family": "ngram"}]
    model = {"family": "mixture", "context_length": 32, "members": members}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield [
            "name=own",
            f"model={json.dumps(model)}",
            "trainer.optimizer=myparts:SignDescent",
            "trainer.learning_rate=2e-3",
            "trainer.steps=120",
            "trainer.jit_compile=true",
            "gate.max_bits_per_byte=6.0",
            f"gate.rules={json.dumps([rule])}",
        ]


@pytest.fixture(scope="module")
def pushed(changes, run_pipeline):
    """A run whose training was interrupted, and the run that went on with it."""
    ended = callbacks.Progress.on_train_batch_end

    def end(self, batch, logs=None):
        ended(self, batch, logs)
        if batch == 50:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Progress, "on_train_batch_end", end)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(*changes)
    return run_pipeline(*changes)


def test_a_training_goes_on_where_it_was_interrupted(pushed):
    _, result, _ = pushed
    assert result.training.resumed_at == 51
    assert result.training.steps == 120
    first, *_, last = result.training.history
    assert last["loss"] < first["loss"]


def test_the_gate_goes_by_the_own_metric(pushed):
    config, result, _ = pushed
    assert result.decision.blessed
    (judged,) = config.folder.glob("artifacts/Evaluator/blessing/*/gate.json")
    rules = {rule["rule"]: rule for rule in json.loads(judged.read_text())["rules"]}
    rule = rules["bits_per_word <= 40"]
    assert rule["passed"]
    low, high = rule["interval"]
    assert low < rule["value"] < high


def test_the_report_tells_of_the_members_of_the_mixture(pushed):
    config, result, _ = pushed
    own, ngram = result.training.members
    assert (own.family, ngram.family) == ("mingru", "ngram")
    assert own.weight + ngram.weight == pytest.approx(1)
    # What has hardly learned is hardly believed.
    assert own.weight < 0.1
    assert result.training.eval_loss < ngram.eval_loss + 0.01
    page = report_run(config.folder).read_text()
    assert f'<td class="number">{ngram.weight:.2f}</td>' in page


def test_the_mixture_with_it_is_served_as_its_preset_scores(pushed):
    config, _, _ = pushed
    text = "the value of a name"
    (preset,) = Path(config.folder).glob("artifacts/Trainer/model_run/*/preset")
    expected = CausalLM.from_preset(str(preset)).score(text)
    with (
        running_server(config.push_folder) as address,
        Client(address) as client,
    ):
        (score,) = client.score([text])
        (written,) = client.generate([text], max_new_tokens=4, temperature=0.0)
    np.testing.assert_allclose(score.nll, -np.sum(expected), rtol=1e-4)
    assert written.new_tokens <= 4


def test_what_was_made_of_the_parts_is_in_the_cache(pushed, changes, run_pipeline):
    _, again, _ = run_pipeline(*changes)
    assert again.executed == []


def test_the_parts_are_in_the_compiled_pipeline(changes, settings, tmp_path):
    images = ["kubeflow.image=langzoo:1", "root=/runs"]
    config = loading.load(settings=[*settings, *changes, *images])
    compile_pipeline(config, tmp_path / "pipeline.yaml")
    text = (tmp_path / "pipeline.yaml").read_text()
    for part in ("mypackage.mingru:FAMILY", "myparts:SignDescent", "myparts:bits_per"):
        assert part in text
