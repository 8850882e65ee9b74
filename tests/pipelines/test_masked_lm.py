"""A masked language model, from files to a server."""

from __future__ import annotations

import json

import pytest
import unchecked
from langzoo import cli
from langzoo.components.evaluator import judging
from langzoo.models import ByteTokenizer, build
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.kubeflow.compiler import compile_pipeline
from langzoo.serving.export import saved_model

SETTINGS = [
    "name=masked",
    "task=masked_lm",
    "model={family: bert, context_length: 32, num_layers: 1, hidden_dim: 32}",
    "trainer.steps=60",
    "gate={max_nats_per_masked_token: 6.0}",
]


@pytest.fixture(scope="module")
def masked(run_pipeline):
    return run_pipeline(*SETTINGS)


@pytest.fixture(scope="module")
def address(masked):
    config, _, _ = masked
    with unchecked.server(config.push_folder) as server:
        yield server.grpc_address, server.rest_address


def test_it_is_measured_gated_and_pushed(masked):
    _, result, shown = masked
    assert result.decision.blessed
    assert "nats per masked token, bound 6.000" in str(result.decision)
    assert result.decision.value < 5.8  # the logarithm of the vocabulary is 6.24
    assert "pushed version" in shown
    evaluation = result.decision.evaluation
    assert evaluation.task == "masked_lm"
    assert list(evaluation.candidate)[:2] == [
        "nats_per_masked_token",
        "masked_perplexity",
    ]
    assert evaluation.candidate["nats_per_masked_token"].low is not None


def test_a_model_of_another_task_is_none_to_compare_with(masked, first, export_of):
    models = {"candidate": masked, "last_blessed": first}
    paths = {name: str(export_of(run[1])) for name, run in models.items()}
    left_out, *_ = judging._measure_exports(paths, judging.EVAL, [], "masked_lm")
    assert left_out == {"last_blessed": "it is of task causal_lm, and not masked_lm"}


def test_a_model_of_another_tokenizer_is_none_to_compare_with(
    masked, export_of, tmp_path
):
    model = build("bert", ByteTokenizer(), 16, task="masked_lm", num_layers=1)
    with unchecked.exports():
        saved_model.export(model, tmp_path / "bytes", task="masked_lm")
    own = str(export_of(masked[1]))
    paths = {"candidate": own, "last_blessed": str(tmp_path / "bytes")}
    left_out, measured = judging._measure_exports(
        paths, judging.EVAL, ["The statement"], "masked_lm"
    )
    assert measured.keys() == {"candidate"}
    assert "it has another tokenizer than the candidate" in left_out["last_blessed"]
    same = {"candidate": own, "last_blessed": own}
    assert not judging._measure_exports(same, judging.EVAL, ["a"], "masked_lm")[0]


def test_page_and_card_say_what_it_is_measured_in(masked):
    config, result, _ = masked
    page = result.report.read_text()
    assert "nats per masked token" in page
    assert "bits per byte" not in page
    (card,) = (config.folder / "serving").glob("*/assets.extra/README.md")
    text = card.read_text()
    assert "pipeline_tag: fill-mask" in text
    assert "A masked language model of family **bert**" in text
    assert "langzoo fill" in text


def command(words, capfd):
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.app(words)
    return ended.value.code, capfd.readouterr()


def test_gaps_are_filled_over_grpc_and_rest(address, capfd):
    told = []
    for server in (address[0], f"http://{address[1]}"):
        words = ["fill", "The [MASK] statement [MASK]", "--server", server]
        code, said = command([*words, "--json", "--alternatives", "3"], capfd)
        assert code == 0, said.err
        told.append(json.loads(said.out))
    assert told[0] == told[1]
    assert [len(pieces) for pieces in told[0]["alternatives"]] == [3, 3]
    code, said = command(["fill", "no gap", "--server", address[0]], capfd)
    assert code == cli.EXIT_ERROR
    assert said.err == (
        "langzoo: write [MASK] where a piece is missing: there is none in 'no gap'\n"
    )


def test_a_score_is_told_to_be_none_of_the_text(address, capfd):
    code, said = command(["score", "The statement", "--server", address[0]], capfd)
    assert code == 0, said.err
    assert said.out.startswith("pseudo-perplexity ")
    assert "bits per byte" not in said.out


def test_the_configuration_that_is_shipped_compiles_for_kubeflow(tmp_path):
    shipped = loading.DEMO_CONFIG.with_name("masked_lm.yaml")
    output = tmp_path / "pipeline.json"
    compile_pipeline(loading.load(shipped), output)
    given = json.loads(output.read_text())
    parameters = given["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]
    assert "max_nats_per_masked_token" in parameters
    assert "max_bits_per_byte" not in parameters
