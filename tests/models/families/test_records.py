"""The records: abilities are what backbones have, and all that others ask."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import langzoo
import pytest
from langzoo.models import FAMILIES as BACKBONES
from langzoo.models import ByteTokenizer, build_causal_lm
from langzoo.models.families import FAMILIES, family_of, family_of_model
from langzoo.models.references import load
from langzoo.models.tasks import TASKS
from tiny_models import TINY

ROOT = Path(langzoo.__file__).parent
FLOORS = ("models", "serving", "components", "pipelines", "cli")
# Methods that an ability promises.
METHODS = {
    "carries_state": "call_with_state",
    "keeps_documents_apart": "call_packed",
    "shows_attention": "attention_weights",
}


@pytest.mark.parametrize("ability", METHODS)
def test_a_family_is_able_where_its_backbone_has_the_method(ability):
    for name, backbone in BACKBONES.items():
        has_method = hasattr(backbone, METHODS[ability])
        assert getattr(FAMILIES[name], ability) == has_method, name


@pytest.mark.parametrize("family", TINY)
def test_a_model_knows_its_family(family):
    model = build_causal_lm(family, ByteTokenizer(), 16, **TINY[family])
    assert family_of_model(model).name == family


def test_a_model_of_keras_hub_knows_its_family(llama_preset):
    model = build_causal_lm("keras_hub", ByteTokenizer(), 16, preset=llama_preset)
    assert family_of_model(model) is FAMILIES["keras_hub"]
    assert not family_of_model(model).multiplies_output_weights


@pytest.mark.parametrize("family", TINY)
def test_arguments_of_a_backbone_are_the_settings_of_its_family(family):
    fields = FAMILIES[family].settings.model_fields
    parameters = inspect.signature(BACKBONES[family]).parameters
    assert next(iter(parameters)) == "vocabulary_size"
    assert list(parameters)[-3:] == ["max_sequence_length", "dtype", "kwargs"]
    named = {
        name: parameter.default for name, parameter in list(parameters.items())[1:-3]
    }
    apart = {"family", "context_length", "initial_weights"}
    assert named == {name: fields[name].default for name in fields.keys() - apart}
    for name in named:
        assert f"        {name}: " in BACKBONES[family].__doc__
        assert fields[name].description


@pytest.mark.parametrize("family", TINY)
def test_the_configuration_of_a_backbone_holds_its_arguments(family):
    model = build_causal_lm(family, ByteTokenizer(), 16, **TINY[family])
    config = model.backbone.get_config()
    arguments = list(inspect.signature(BACKBONES[family]).parameters)[:-1]
    assert set(config) == {"name", "trainable", *arguments}
    assert TINY[family].items() <= config.items()
    assert (config["vocabulary_size"], config["max_sequence_length"]) == (260, 16)


def test_arguments_can_be_given_by_position():
    backbone = BACKBONES["lstm"](60, 2, 16)
    assert (backbone.num_layers, backbone.hidden_dim) == (2, 16)
    with pytest.raises(TypeError, match="vocabulary_size"):
        BACKBONES["lstm"]()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dropout": 1.0}, "dropout: 1.0 cannot be: input should be less than 1"),
        ({"num_layers": 0}, "num_layers: 0 cannot be"),
        ({"hidden_dim": "wide"}, "hidden_dim: 'wide' cannot be"),
    ],
)
def test_a_wrong_argument_is_an_error_of_one_line(arguments, said):
    with pytest.raises(ValueError, match=said) as raised:
        BACKBONES["lstm"](60, **arguments)
    assert "\n" not in str(raised.value)


def test_the_gated_metric_of_a_task_is_in_its_record():
    task = TASKS["causal_lm"]
    assert (task.metric, task.direction) == ("bits_per_byte", "lower")
    assert load(task.model) is langzoo.models.CausalLM


def test_an_unknown_task_is_an_error():
    with pytest.raises(ValueError, match=r"\['causal_lm', .*task='parsing'"):
        build_causal_lm("lstm", ByteTokenizer(), 16, task="parsing")


def test_the_records_need_no_tensorflow():
    code = (
        "import sys; from langzoo.models.families import FAMILIES; "
        "from langzoo.models.families.presets import PRESETS; "
        "from langzoo.models.tasks import TASKS; "
        "assert all(p.size or p.family == 'ngram' for p in PRESETS.values()); "
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- A family of the user's own ---


def test_a_family_of_ones_own_is_found_by_its_name(own_family):
    record = family_of(own_family)
    assert (record.name, record.carries_state) == ("mingru", True)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, r"wrongs.mine:FAMILY: no such module in .* or among the installed"),
        ("", r"wrongs.mine:FAMILY: the module has no FAMILY"),
        ("import nowhere", r"wrongs.mine:FAMILY: No module named 'nowhere'"),
        ("1 / 0", r"wrongs.mine:FAMILY: ZeroDivisionError: division by zero"),
        ("FAMILY = 3", r"wrongs.mine:FAMILY must be a .*Family.*; it is a int"),
        (
            "from langzoo.models.families.family import Family\n"
            "FAMILY = Family(name='x', settings=dict, backbone='wrongs.mine:X')",
            r"the settings of a family must be a subclass of FamilySettings",
        ),
        (
            "from langzoo.models.families.family import Family, LearnedSettings\n"
            "FAMILY = Family(name='x', settings=LearnedSettings, backbone='X')",
            r"the backbone of a family must be named module:Class; it is 'X'",
        ),
    ],
)
def test_what_breaks_the_contract_is_an_error_of_one_line(
    tmp_path, monkeypatch, source, said
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wrongs").mkdir()
    if source is not None:
        (tmp_path / "wrongs" / "mine.py").write_text(source)
    with pytest.raises(ValueError, match=said) as raised:
        family_of("wrongs.mine:FAMILY")
    assert "\n" not in str(raised.value)
    for name in ("wrongs", "wrongs.mine"):
        sys.modules.pop(name, None)


def test_a_backbone_that_is_not_there_or_is_none_is_named(own_family, monkeypatch):
    record = family_of(own_family)
    build_causal_lm(own_family, ByteTokenizer(), 16, hidden_dim=8)  # as it should be
    for backbone, said in [
        ("mypackage.backbone:Mamba", "the module has no Mamba"),
        ("mypackage.mingru:MinGRUSettings", "must be a subclass of CausalBackbone"),
    ]:
        other = dataclasses.replace(record, backbone=backbone)
        monkeypatch.setattr(sys.modules["mypackage.mingru"], "FAMILY", other)
        with pytest.raises(ValueError, match=said):
            build_causal_lm(own_family, ByteTokenizer(), 16)


# --- Nobody asks what a model is ---


def _outside_of_families():
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT).parts
        if parts[0] in FLOORS and parts[:2] != ("models", "families"):
            yield file


def _classes():
    """Names of the classes of all families, those that they build on among them."""
    found = {"NgramCausalLM", "MixtureCausalLM", "KerasHubCausalLM"}
    for backbone in BACKBONES.values():
        found |= {
            cls.__name__ for cls in backbone.__mro__ if "families" in cls.__module__
        }
    return found


def test_no_code_outside_asks_for_the_class_of_a_family():
    classes = _classes()
    assert {"RecurrentBackbone", "TransformerBackbone"} <= classes
    asked = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in _outside_of_families()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("isinstance", "issubclass", "type")
        and any(
            isinstance(name, ast.Name | ast.Attribute)
            and (getattr(name, "id", "") or getattr(name, "attr", "")) in classes
            for argument in node.args
            for name in ast.walk(argument)
        )
    ]
    assert not asked


def test_no_code_outside_compares_the_name_of_a_family():
    compared = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for file in _outside_of_families()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Compare) and "famil" in ast.unparse(node)
        for side in ast.walk(node)
        if isinstance(side, ast.Constant) and side.value in FAMILIES
    ]
    assert not compared
