"""Every command and every piece of code in the README, run as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import langzoo
import pytest
import yaml
from langzoo import cli
from langzoo.pipelines.configuration import loading
from langzoo.serving.client import Client

README = (Path(langzoo.__file__).parent / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(name):
    """The arguments of each command line in the README that starts with `name`."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    parsed = (shlex.split(line, comments=True) for line in lines)
    return [words[1:] for words in parsed if words and words[0] == name]


def langzoo_commands(*subcommands):
    return [words for words in commands("langzoo") if words[0] in subcommands]


def run_langzoo(words, folder, **options):
    return subprocess.run(
        [sys.executable, "-m", "langzoo", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        **options,
    )


def test_the_make_targets_exist():
    makefile = (Path(langzoo.__file__).parent / "Makefile").read_text()
    assert commands("make") == [["demo"], ["test"]]
    for (target,) in commands("make"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the files that the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    text = "A first line.\n\nAnother paragraph, of some words.\n\n"
    (folder / "book.txt").write_text(text * 30)
    (folder / "texts").mkdir()
    for number in range(40):
        (folder / "texts" / f"{number}.txt").write_text(f"{text}{number}")
    shutil.copy(loading.DEMO_CONFIG, folder / "my.yaml")
    return folder


RUNS = langzoo_commands("run")


@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_run(words, folder, settings):
    # One shows that what is blessed is served; the others are spared the server.
    bound, status = 0.1, cli.EXIT_REFUSED
    said = r"refused: \d\.\d+ bits per byte, bound 0.100"
    if words == RUNS[0]:
        bound, status, said = 99, 0, "pushed version"
    # At their own sizes these would take minutes each.
    tiny = [setting for setting in settings if not setting.startswith("corpus.")]
    tiny += ["trainer.steps=3", f"gate.max_bits_per_byte={bound}"]
    if "--corpus" not in words:
        tiny.append("corpus.path=texts/*.txt")
    # What is of one corpus shares what is made of it.
    tiny.append(f"root=runs-{'book' if 'book.txt' in words else 'texts'}")
    changes = [f"--set={setting}" for setting in tiny]
    ended = run_langzoo([*words, *changes], folder)
    assert ended.returncode == status, ended.stderr
    assert re.search(said, ended.stdout)
    assert ended.stderr == ""


def test_gate(folder, first, tmp_path):
    (words,) = langzoo_commands("gate")
    _, result, _ = first
    given = words.index("langzoo-runs/demo/serving")
    words[given] = str(result.pushed.parent)
    rule = "[{metric: token_accuracy, min: 0.99}]"
    changes = [f"--set={s}" for s in (f"root={tmp_path}", f"gate.rules={rule}")]
    ended = run_langzoo([*words, "--output", "gated", *changes], folder)
    assert ended.returncode == cli.EXIT_REFUSED, ended.stderr
    assert re.search(r"token_accuracy >= 0.99: below the bound$", ended.stdout, re.M)
    told = json.loads((folder / "gated" / "evaluation.json").read_text())
    assert told["documents"] == 40
    assert not json.loads((folder / "gated" / "gate.json").read_text())["blessed"]


@pytest.mark.parametrize("words", langzoo_commands("runs", "report"), ids=" ".join)
def test_what_came_of_runs(words, first, folder, settings):
    _, result, _ = first
    changes = [f"--set={setting}" for setting in settings]
    ended = run_langzoo([*words, *changes], folder)
    assert ended.returncode == 0, ended.stderr
    assert str(result.report.parent.parent) in ended.stdout


def test_compare(first, folder, settings):
    (words,) = langzoo_commands("compare")
    shared = [one for one in settings if not one.startswith("model.")]
    changes = [f"--set={setting}" for setting in [*shared, "trainer.steps=0"]]
    ended = run_langzoo([*words, "--json", *changes], folder)
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    ranked = [(row["rank"], row["name"]) for row in rows]
    assert ranked == [(1, "ngram_base"), (2, "lstm_tiny")]
    assert Path(rows[0]["page"]).is_file()


@pytest.fixture(scope="module")
def compiled(folder):
    (words,) = langzoo_commands("compile")
    ended = run_langzoo(words, folder)
    assert ended.returncode == 0, ended.stderr
    return folder / words[words.index("--output") + 1]


def test_rehearse(compiled, folder):
    # What the containers do is tested in test_rehearsal.py.
    content = yaml.safe_load(compiled.read_text())
    for executor in content["deploymentSpec"]["executors"].values():
        executor["container"] = {"image": "none", "command": ["true"]}
    compiled.write_text(yaml.safe_dump(content))
    (words,) = langzoo_commands("rehearse")
    ended = run_langzoo(words, folder)
    assert ended.returncode == 0, ended.stderr
    assert "nothing was pushed" in ended.stdout


def test_a_trainer_is_placed_as_the_readme_says(folder, tmp_path):
    (section,) = (block for block in blocks("yaml") if "kubeflow:" in block)
    path = tmp_path / "placed.yaml"
    path.write_text((folder / "my.yaml").read_text() + section)
    trainer = loading.load(path).kubeflow.of("Trainer")
    assert trainer.accelerator == "nvidia.com/gpu"
    assert trainer.memory_gb == 8


@pytest.mark.parametrize(
    "words", langzoo_commands("versions", "rollback"), ids=" ".join
)
def test_versions(words, first, folder, settings, tmp_path):
    _, result, _ = first
    for offset in (0, 1):
        version = int(result.pushed.name) + offset
        shutil.copytree(result.pushed, tmp_path / str(version))
    changes = [f"--set={one}" for one in settings]
    ended = run_langzoo(
        [*words, *changes, f"--set=serving.push_folder={tmp_path}"], folder
    )
    assert ended.returncode == 0, ended.stderr
    assert result.pushed.name in ended.stdout


@pytest.fixture(scope="module")
def addresses(first):
    """Starts the README's `langzoo serve` on free ports; gives (gRPC, REST)."""
    _, result, _ = first
    (words,) = langzoo_commands("serve")
    options = [f"--model-base-path={result.pushed.parent}", "--port=0"]
    server = subprocess.Popen(
        [sys.executable, "-m", "langzoo", *words, *options, "--rest-api-port=0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lines = iter(server.stdout.readline, "")
        ready = next(line for line in lines if "gRPC on" in line)
        ports = re.search(r"gRPC on \S+:(\d+), REST on \S+:(\d+)", ready).groups()
        yield [f"127.0.0.1:{port}" for port in ports]
    finally:
        server.terminate()
        assert server.wait(30) == 0


@pytest.fixture(scope="module")
def gateway(addresses):
    """Starts the README's `langzoo gateway` on a free port; gives its address."""
    (words,) = langzoo_commands("gateway")
    words = [word.replace("127.0.0.1:8500", addresses[0]) for word in words]
    process = subprocess.Popen(
        [sys.executable, "-m", "langzoo", *words, "--port=0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        yield re.search(r"http://(\S+)/v1", line)[1]
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize("words", langzoo_commands("score", "generate", "next"))
def test_client(words, addresses, tmp_path):
    ended = run_langzoo([*words, "--server", addresses[0]], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert words[1] in ended.stdout


def test_a_python_client_is_answered(addresses):
    with Client(addresses[0]) as client:
        (score,) = client.score(["The yield statement"])
        (generation,) = client.generate(["The "], max_new_tokens=5)
    assert score.bits_per_byte > 0
    assert score.bytes == len("The yield statement")
    assert generation.new_tokens <= 5


def test_explain(addresses, tmp_path):
    (words,) = langzoo_commands("explain")
    ended = run_langzoo([*words, "--server", addresses[0]], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "bits over" in (tmp_path / words[-1]).read_text()


def test_curl(addresses):
    (command,) = re.findall(r"`(curl .*?)`", README)
    command = command.replace("127.0.0.1:8501", addresses[1])
    ended = subprocess.run(
        [*shlex.split(command), "--silent"], capture_output=True, text=True
    )
    assert '"token"' in ended.stdout


@pytest.mark.parametrize("code", blocks("python"))
def test_python(code, addresses, gateway, tmp_path):
    code = code.replace("127.0.0.1:8500", addresses[0])
    ended = subprocess.run(
        [sys.executable, "-c", code.replace("127.0.0.1:8000", gateway)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()


def test_the_flags_for_the_stock_server_are_its_own():
    (words,) = commands("tensorflow_model_server")
    known = ("port", "rest_api_port", "model_name", "model_base_path")
    assert [word.split("=")[0].removeprefix("--") for word in words] == list(known)


def test_the_linked_files_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(langzoo.__file__).parent / target).exists(), target
