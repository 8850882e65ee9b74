"""The fingerprint of source code follows what an executor imports."""

import shutil
from pathlib import Path

import langzoo
import pytest
from langzoo.components import source
from langzoo.components.source import source_hash
from langzoo.components.trainer.component import RUN_FN
from langzoo.components.transform.component import PREPROCESSING_FN
from langzoo.components.tuner.component import TUNER_FN

ROOTS = {
    "TextExampleGen": ("langzoo.components.text_example_gen.executor",),
    "ExampleValidator": ("langzoo.components.example_validator.executor",),
    "TokenizerTrainer": ("langzoo.components.tokenizer_trainer.executor",),
    "Transform": ("langzoo.components.transform.executor", PREPROCESSING_FN),
    "Tuner": (TUNER_FN,),
    "Trainer": (RUN_FN,),
    "Evaluator": ("langzoo.components.evaluator.executor",),
    "ServingValidator": ("langzoo.components.serving_validator.executor",),
    "Pusher": ("langzoo.components.pusher.executor",),
}
"""Modules of which a component's `source_hash` is."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the package, whose parent is where it is imported from."""
    package = Path(langzoo.__file__).parent
    checkout = tmp_path_factory.mktemp("source") / "langzoo"
    for part in ("models", "serving", "components"):
        shutil.copytree(package / part, checkout / part)
    shutil.copy(package / "__init__.py", checkout)
    return checkout


def hashes(checkout: Path) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_HERE", checkout)
        return {name: source_hash(*modules) for name, modules in ROOTS.items()}


@pytest.fixture(scope="module")
def before(checkout) -> dict[str, str]:
    return hashes(checkout)


TRAINED = {"Tuner", "Trainer"}


@pytest.mark.parametrize(
    ("file", "components"),
    [
        ("components/text_example_gen/hubs.py", {"TextExampleGen"}),
        # Imported in a function.
        ("components/push_folder/object_stores.py", {"Evaluator", "Pusher"}),
        ("components/example_validator/executor.py", {"ExampleValidator"}),
        (
            "models/tokenizers/sentence_piece_model.py",
            {"TokenizerTrainer", "Transform", "Evaluator", *TRAINED},
        ),
        ("components/transform/preprocessing.py", {"Transform"}),
        # Which adapts a model to a text while it is scored.
        ("models/families/recurrent/cudnn.py", {"Evaluator", *TRAINED}),
        ("components/tuner/search.py", {"Tuner"}),
        ("serving/export/output_projection.py", {"Evaluator", "Trainer"}),
        # A data file, and what a process of its own runs.
        ("components/evaluator/probes/templates.yaml", {"Evaluator"}),
        ("components/pusher/templates/model_card.md", {"Pusher"}),
        ("serving/server/rest.py", {"ServingValidator"}),
        ("serving/gateway/app.py", set()),
    ],
)
def test_an_edit_changes_the_hashes_of_those_who_import(
    checkout, before, file, components
):
    path = checkout / file
    original = path.read_text()
    path.write_text(original + "\n# An edit.\n")
    after = hashes(checkout)
    path.write_text(original)
    assert {name for name in ROOTS if before[name] != after[name]} == components


def test_without_the_edits_the_hashes_are_those_of_before(checkout, before):
    assert hashes(checkout) == before


def test_a_package_of_the_user_s_own_is_followed(tmp_path, monkeypatch):
    folder = tmp_path / "somebody"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "model.py").write_text("def make():\n    from . import layers\n")
    (folder / "layers.py").write_text("WIDTH = 8\n")
    (folder / "unused.py").write_text("WIDTH = 8\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = source_hash(RUN_FN, "somebody.model:make")
    assert before != source_hash(RUN_FN)
    (folder / "unused.py").write_text("WIDTH = 9\n")
    assert source_hash(RUN_FN, "somebody.model:make") == before
    (folder / "layers.py").write_text("WIDTH = 9\n")
    assert source_hash(RUN_FN, "somebody.model:make") != before


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ModuleNotFoundError, match="No module named 'nobody'"):
        source_hash("nobody.model:make")
