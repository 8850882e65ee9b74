"""A user's own optimizer trains, goes on after an interruption, and is in the key."""

from __future__ import annotations

import numpy as np
import pytest
from langzoo.components.errors import InputError
from langzoo.components.trainer import training
from langzoo.components.trainer.component import RUN_FN, learner_config
from langzoo.components.trainer.networks import network_of
from langzoo.components.trainer.rows.windows import TokenWindows
from langzoo.components.trainer.settings import TrainerSettings
from langzoo.models import ByteTokenizer, build_causal_lm

PACKAGE = '''
"""Optimizers that langzoo does not have."""

import dataclasses

import keras
from keras import ops
from langzoo.models.families import FAMILIES


class Signs(keras.optimizers.SGD):
    """Steps of one length for every weight, after a momentum of its own."""

    def build(self, variables):
        super().build(variables)
        self.past = [
            self.add_variable_from_reference(variable, name="past")
            for variable in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        past = self.past[self._get_variable_index(variable)]
        past.assign(0.9 * past + 0.1 * gradient)
        super().update_step(ops.sign(past), variable, learning_rate)


def plain(learning_rate):
    return keras.optimizers.SGD(learning_rate)


FAMILY = dataclasses.replace(FAMILIES["lstm"], name="mine")


def broken(learning_rate):
    return learning_rate


def without_rate():
    return keras.optimizers.SGD()
'''
STEPS = 8


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    file = folder / "somebody_s.py"
    file.write_text(PACKAGE)
    (folder / "broken_s.py").write_text("1 / 0")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield file


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    tokenizer = ByteTokenizer()
    path = tmp_path_factory.mktemp("windows") / "stream"
    TokenWindows.write(
        path,
        [np.array(tokenizer(PACKAGE))],
        vocabulary_size=tokenizer.vocabulary_size(),
        start_id=tokenizer.start_token_id,
        end_id=tokenizer.end_token_id,
        pad_id=tokenizer.pad_token_id,
    )
    return TokenWindows(path, context_length=16)


def train(windows, folder, **options):
    model = build_causal_lm(
        "gated_conv", ByteTokenizer(), 16, num_layers=1, hidden_dim=16
    )
    settings = TrainerSettings(
        **{"steps": STEPS, "batch_size": 4, "jit_compile": False, **options}
    ).of_family("gated_conv")
    network = network_of(model, settings)
    result = training.train(network, windows, windows, settings, str(folder))
    return network, result


def test_an_optimizer_of_one_s_own_goes_on_as_if_it_had_not_been_interrupted(
    windows, tmp_path, interrupted, monkeypatch
):
    import keras
    from langzoo.components.trainer import callbacks

    monkeypatch.setattr(callbacks, "_SHOW_EVERY_SECONDS", 0)
    options = {"optimizer": "somebody_s:Signs", "schedule": "constant"}
    options["warmup_steps"] = 0
    networks = []
    for folder, stop in (("whole", None), ("parts", "step 5/"), ("parts", None)):
        keras.utils.set_random_seed(0)
        if stop:
            with interrupted(stop):
                train(windows, tmp_path / folder, **options)
            continue
        network, result = train(windows, tmp_path / folder, **options)
        networks.append(network)
    whole, resumed = networks
    assert result.resumed_at == 5
    # That of the family, which is AdamW's.
    assert result.history[0]["learning_rate"] == pytest.approx(4e-3)
    assert type(resumed.optimizer).__name__ == "Signs"
    for weight, expected in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_allclose(weight.numpy(), expected.numpy(), atol=1e-6)


def test_an_optimizer_gets_what_its_signature_takes():
    settings = TrainerSettings(optimizer="somebody_s:Signs", clip_norm=0.25)
    optimizer = settings.recipe.make_optimizer()
    assert (optimizer.global_clipnorm, optimizer.weight_decay) == (0.25, 0.1)
    plain = TrainerSettings(optimizer="somebody_s:plain").recipe.make_optimizer()
    assert (plain.global_clipnorm, plain.weight_decay) == (None, None)


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ("nobody_s:Signs", "nobody_s:Signs: no such module in "),
        ("broken_s:Signs", "broken_s:Signs: ZeroDivisionError: division by zero"),
        ("somebody_s:Sings", "somebody_s:Sings: the module has no Sings"),
        ("somebody_s:keras", "somebody_s:keras must be a subclass of keras.optim"),
        ("somebody_s:without_rate", "without_rate must be .* and take learning_rate"),
    ],
)
def test_an_optimizer_that_cannot_be_is_told_before_anything_runs(optimizer, said):
    with pytest.raises(InputError, match=said) as raised:
        learner_config(
            {"family": "lstm"}, {"optimizer": optimizer}, "", "causal_lm", RUN_FN
        )
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "somebody_s:broken"}, "broken must make a keras.optimizers.Opt"),
        (
            {"optimizer": "somebody_s:plain", "gradient_accumulation_steps": 2},
            "somebody_s:plain does not take gradient_accumulation_steps",
        ),
        (
            {"optimizer": "somebody_s:plain", "ema_momentum": 0.9},
            "somebody_s:plain does not take use_ema",
        ),
        (
            {"optimizer": "somebody_s:plain", "cautious_decay": True},
            "somebody_s:plain must be a class to be given cautious_decay",
        ),
    ],
)
def test_what_is_no_optimizer_or_cannot_do_what_is_asked_is_an_error(
    windows, tmp_path, options, said
):
    with pytest.raises(InputError, match=rf"trainer\.optimizer: .*{said}"):
        train(windows, tmp_path, **options)


def test_the_source_of_own_parts_is_in_the_cache_key(package):
    def source(model, training):
        config = learner_config(model, training, "", "causal_lm", RUN_FN)
        return config["source"]

    plain = ({"family": "lstm"}, {"optimizer": "lion"})
    optimizer = ({"family": "lstm"}, {"optimizer": "somebody_s:Signs"})
    family = ({"family": "somebody_s:FAMILY"}, {"optimizer": None})
    before = [source(*parts) for parts in (plain, optimizer, family)]
    package.write_text(PACKAGE + "\n# An edit.\n")
    after = [source(*parts) for parts in (plain, optimizer, family)]
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert before[2] != after[2]
