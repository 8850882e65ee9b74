"""Every command and every piece of code of the documentation, run as it stands there.

All pages share a working directory, and the first run in it, which pushes a model.
What needs a cluster is in test_kubeflow.py.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import hugging_face_bert
import langzoo
import pytest
import typer
import unchecked
import yaml
from langzoo import cli
from langzoo.components.evaluator.probes import templates
from langzoo.pipelines.configuration import loading
from langzoo.serving.client import Client
from quick_beam import quick_beam  # noqa: F401

ROOT = Path(langzoo.__file__).parent
FRONT = "README.md"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / FRONT, *sorted((ROOT / "docs").glob("*.md")))
}
# Those whose commands are of other programs, on other machines.
OTHERS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "serving/deployment/README.md")
}
KUBEFLOW = "docs/kubeflow.md"
COMMANDS = typer.main.get_command(cli.app).commands


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str


BLOCKS = [
    Block(page, *found)
    for page, text in PAGES.items()
    for found in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
]
# Modules of the reader's own: a comment in the first line names the file.
MODULES = {
    found[1]: block.text
    for block in BLOCKS
    if (found := re.match(r"# (\S+\.py)\n", block.text))
}


def blocks(language):
    return [one for one in BLOCKS if one.language == language]


def commands(name):
    """The arguments of each command line that starts with `name`, once."""
    lines = "\n".join(block.text for block in blocks("bash")).replace("\\\n", " ")
    parsed = (shlex.split(line, comments=True) for line in lines.splitlines())
    found = {tuple(words[1:]): None for words in parsed if words and words[0] == name}
    return [list(words) for words in found]


def langzoo_commands(*subcommands):
    return [words for words in commands("langzoo") if words[0] in subcommands]


def changed(words, settings):
    return [*words, *(f"--set={setting}" for setting in settings)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the files that the pages speak of."""
    folder = tmp_path_factory.mktemp("pages")
    text = "A first line.\n\nAnother paragraph, of some words.\n\n"
    (folder / "book.txt").write_text(text * 30)
    (folder / "texts").mkdir()
    for number in range(40):
        (folder / "texts" / f"{number}.txt").write_text(f"{text}{number}")
    shutil.copy(loading.DEMO_CONFIG, folder / "my.yaml")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "all-MiniLM-L6-v2").mkdir()
    sizes = {**hugging_face_bert.CONFIG, "max_position_embeddings": 256}
    weights = hugging_face_bert.tensors(sizes)
    hugging_face_bert.save(folder / "all-MiniLM-L6-v2", weights, sizes)
    shutil.copy(templates.SHIPPED, folder / "my_sentences.yaml")
    for name, code in MODULES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code)
    return folder


# At their own sizes trainings would take minutes each.
TINY_MODEL = ["model.context_length=32", "model.num_layers=1", "model.hidden_dim=32"]
TINY = [
    *("tokenizer.vocabulary_size=512", "trainer.batch_size=16", "trainer.steps=3"),
    *("corpus.path=texts/*.txt", "name=texts-txt"),
]
RUNS = langzoo_commands("run")


@pytest.fixture(scope="module")
def first(folder):
    """The front page's run, which pushes a version; gives its folder."""
    bound = "gate.max_bits_per_byte=99"
    with (
        contextlib.chdir(folder),
        unchecked.exports(),
        pytest.raises(SystemExit) as ended,
    ):
        cli.app(changed(RUNS[0], [*TINY, *TINY_MODEL, bound]))
    assert ended.value.code == 0
    (version,) = (folder / "langzoo-runs" / "texts-txt" / "serving").iterdir()
    return version


def test_the_run_of_the_front_page_pushes_a_version(first):
    assert (first / "saved_model.pb").is_file()


@pytest.fixture
def own_modules(folder, monkeypatch):
    """The working directory, where the reader's modules are found."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    tops = {name.split("/")[0].removesuffix(".py") for name in MODULES}
    tops.discard("mypackage")  # It is the same wherever it is from: `own_family`.
    for name in [name for name in sys.modules if name.split(".")[0] in tops]:
        # Another test's; they come back.
        monkeypatch.delitem(sys.modules, name)
    others = {*sys.modules}
    yield folder
    for name in {*sys.modules} - others:
        if name.split(".")[0] in tops:
            del sys.modules[name]


@pytest.fixture
def run_langzoo(own_modules, monkeypatch, capfd):
    """Calls a command in this process, which has imported TFX already."""

    def run(words, folder, *settings):
        monkeypatch.chdir(folder)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended, unchecked.pipelines():
            cli.app(changed(words, settings))
        said = capfd.readouterr()
        code = ended.value.code
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    return run


def test_a_run_reads_the_corpus_that_it_is_given(folder, run_langzoo):
    (words,) = (words for words in RUNS if "book.txt" in words)
    # What comes after is what it is with any: here a tokenizer that is none ends it.
    ended = run_langzoo(
        words, folder, "root=book", "tokenizer={type: file, path: tokenizer.json}"
    )
    assert ended.returncode == cli.EXIT_ERROR
    assert "tokenizer.json" in ended.stderr
    split = "book/*/artifacts/TextExampleGen/examples/*/Split-train/*"
    assert list(folder.glob(split))


@pytest.mark.parametrize(
    "words", [words for words in RUNS[1:] if "book.txt" not in words], ids=" ".join
)
def test_run(words, first, folder, run_langzoo):
    # That what is blessed is served is shown once; these are spared the server.
    settings = [*TINY, *TINY_MODEL, "gate.max_bits_per_byte=0.1"]
    settings.append("trainer.jit_compile=false")  # shown once, too
    ended = run_langzoo(words, folder, *settings)
    assert ended.returncode == cli.EXIT_REFUSED, ended.stderr
    assert re.search(r"refused: \d\.\d+ bits per byte, bound 0.100", ended.stdout)
    assert ended.stderr == ""


def test_gate(first, folder, run_langzoo):
    (words,) = langzoo_commands("gate")
    # With the rule that the page shows about a metric of the reader's own.
    shown = (block.text for block in blocks("yaml"))
    (own,) = (text for text in shown if "mypackage.measures" in text)
    rules = [*yaml.safe_load(own)["gate"]["rules"]]
    rules.append({"metric": "token_accuracy", "min": 0.99})
    words = [*words, "--output", "gated"]
    ended = run_langzoo(words, folder, f"gate.rules={json.dumps(rules)}", "root=judged")
    assert ended.returncode == cli.EXIT_REFUSED, ended.stderr
    assert re.search(r"token_accuracy >= 0.99: below the bound$", ended.stdout, re.M)
    told = json.loads((folder / "gated" / "evaluation.json").read_text())
    assert told["documents"] == 40
    gate = json.loads((folder / "gated" / "gate.json").read_text())
    assert not gate["blessed"]
    kept = [rule["metric"] for rule in gate["rules"] if rule["passed"]]
    assert "bytes_per_token" in kept


@pytest.mark.parametrize("words", langzoo_commands("runs", "report"), ids=" ".join)
def test_what_came_of_runs(words, first, folder, run_langzoo):
    ended = run_langzoo(words, folder)
    assert ended.returncode == 0, ended.stderr
    assert str(folder / "langzoo-runs" / "texts-txt" / "runs") in ended.stdout


def test_compare(first, folder, run_langzoo):
    (words,) = langzoo_commands("compare")
    settings = [*TINY, "model.context_length=32", "trainer.steps=0"]
    ended = run_langzoo([*words, "--json"], folder, *settings)
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert sorted(row["name"] for row in rows) == ["lstm_tiny", "ngram_base"]
    assert [row["rank"] for row in rows] == [1, 2]
    assert Path(rows[0]["page"]).is_file()


def test_rehearse(folder, run_langzoo):
    # What the containers do is tested in test_rehearsal.py.
    compiled = folder / "pipeline.yaml"
    (words,) = (w for w in langzoo_commands("compile") if len(w) == 4)
    ended = run_langzoo(words, folder)
    assert ended.returncode == 0, ended.stderr
    content = yaml.safe_load(compiled.read_text())
    for executor in content["deploymentSpec"]["executors"].values():
        executor["container"] = {"image": "none", "command": ["true"]}
    compiled.write_text(yaml.safe_dump(content))
    (words,) = (w for w in langzoo_commands("rehearse") if compiled.name in w)
    ended = run_langzoo(words, folder)
    assert ended.returncode == 0, ended.stderr
    assert "nothing was pushed" in ended.stdout


@pytest.mark.parametrize(
    "words",
    [words for words in langzoo_commands("versions", "rollback") if "my.yaml" in words],
    ids=" ".join,
)
def test_versions(words, first, folder, tmp_path, run_langzoo):
    for offset in (0, 1):
        shutil.copytree(first, tmp_path / str(int(first.name) + offset))
    ended = run_langzoo(words, folder, f"serving.push_folder={tmp_path}")
    assert ended.returncode == 0, ended.stderr
    assert first.name in ended.stdout


@pytest.fixture(scope="module")
def addresses(first, folder):
    """Starts `langzoo serve` on free ports; gives (gRPC, REST)."""
    (words,) = langzoo_commands("serve")
    server = subprocess.Popen(
        [sys.executable, "-m", "langzoo", *words, "--port=0", "--rest-api-port=0"],
        cwd=folder,
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
    """Starts `langzoo gateway` on a free port; gives its address."""
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


@pytest.mark.parametrize(
    "words", langzoo_commands("score", "generate", "next", "embed"), ids=" ".join
)
def test_client(words, addresses, tmp_path, run_langzoo):
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


def test_explain(addresses, tmp_path, run_langzoo):
    (words,) = langzoo_commands("explain")
    ended = run_langzoo([*words, "--server", addresses[0]], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "bits over" in (tmp_path / words[-1]).read_text()


@pytest.mark.parametrize("words", commands("curl"), ids=" ".join)
def test_curl(words, addresses):
    command = [word.replace("127.0.0.1:8501", addresses[1]) for word in words]
    ended = subprocess.run(
        ["curl", *command, "--silent"], capture_output=True, text=True
    )
    assert '"token"' in ended.stdout


@pytest.mark.parametrize(
    "block",
    [block for block in blocks("python") if block.text not in MODULES.values()],
    ids=lambda block: block.page,
)
def test_python(block, request, own_modules, capfd):
    code = block.text
    if "127.0.0.1" in code:
        addresses = request.getfixturevalue("addresses")
        code = code.replace("127.0.0.1:8500", addresses[0])
        if "127.0.0.1:8000" in code:
            gateway = request.getfixturevalue("gateway")
            code = code.replace("127.0.0.1:8000", gateway)
    if block.page == FRONT:  # as a newcomer would, with nothing imported before
        subprocess.run([sys.executable, "-c", code], check=True)
    else:
        exec(compile(code, block.page, "exec"), {"__name__": "__main__"})
    assert capfd.readouterr().out.strip()


def merged(content, changes):
    """A configuration with what a page says in the place of what it says."""
    if "task" in changes:  # The gate's bounds are of the task that it has.
        content = {key: value for key, value in content.items() if key != "gate"}
    sections = {
        key: {**content.get(key, {}), **value} if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    if {"family", "preset", "initial_weights"} & changes.get("model", {}).keys():
        sections["model"] = changes["model"]
    return {**content, **sections}


@pytest.mark.parametrize(
    "block",
    [block for block in blocks("yaml") if "apiVersion:" not in block.text],
    ids=lambda block: block.page,
)
def test_the_configuration_takes_what_a_page_shows(block, first, own_modules, tmp_path):
    changes = loading._parse(block.text)
    content = loading._parse((own_modules / "my.yaml").read_text())
    path = tmp_path / "shown.yaml"
    path.write_text(yaml.safe_dump(merged(content, changes)))
    assert loading.load(path)


@pytest.mark.parametrize("words", commands("langzoo"), ids=" ".join)
def test_langzoo_knows_its_commands(words, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("pipeline.yaml", "rehearsal.yaml"):
        (folder / name).touch()
    assert COMMANDS[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("page", PAGES)
def test_langzoo_knows_the_commands_in_the_text(page):
    for span in re.findall(r"`(langzoo [a-z][^`]*)`", PAGES[page]):
        _, name, *words = shlex.split(span)
        known = {one for option in COMMANDS[name].params for one in option.opts}
        assert {word for word in words if word.startswith("--")} <= known, span


def test_every_command_is_run_or_checked():
    lines = "\n".join(
        block.text for block in blocks("bash") if block.page != KUBEFLOW
    ).replace("\\\n", " ")
    programs = {line.split()[0] for line in lines.splitlines() if line.strip()}
    assert programs == {"curl", "langzoo", "make", "tensorflow_model_server"}
    run = {"run", "gate", "runs", "report", "compare", "compile", "rehearse"}
    run |= {"versions", "rollback", "serve", "gateway"}
    run |= {"score", "generate", "next", "embed", "explain"}
    assert {words[0] for words in commands("langzoo")} - run == {"worker"}


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    spans = [words[0] for words in commands("make")]
    for text in (*PAGES.values(), *OTHERS.values()):
        spans += re.findall(r"`make ([a-z]+)", text)
    assert {"demo", "test"} <= set(spans)
    for target in spans:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_benchmarks_exist():
    given = [
        words[1] for words in commands("make") if words[0] == "bench" and words[1:]
    ]
    named = [argument.split()[0] for argument in given]
    named = [argument.removeprefix("ARGS=") for argument in named]
    assert named
    for name in named:
        assert (ROOT / "benchmarks" / f"{name}.py").exists(), name


def test_the_extras_exist():
    known = importlib.metadata.metadata("langzoo").get_all("Provides-Extra")
    named = set(re.findall(r"langzoo\[(\w+)\]", "".join(PAGES.values())))
    assert named
    assert named <= set(known)


def test_the_flags_for_the_stock_server_are_its_own():
    (words,) = commands("tensorflow_model_server")
    known = ("port", "rest_api_port", "model_name", "model_base_path")
    assert [word.split("=")[0].removeprefix("--") for word in words] == list(known)


# Front page, links and paths


def test_the_front_page_is_short():
    assert len(PAGES[FRONT].splitlines()) <= 150


def prose(text):
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def links(page):
    """Path, from the root, and anchor of each link of a page within the repository."""
    text = prose((PAGES | OTHERS)[page])
    for target in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        yield linked.resolve(), anchor


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(path.read_text(encoding="utf-8")), re.M)
    plain = (re.sub(r"[^\w\- ]", "", heading).lower() for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_links_lead_somewhere(page):
    for path, anchor in links(page):
        assert path.exists(), path
        assert not anchor or anchor in anchors(path), f"{path}#{anchor}"


def test_every_page_is_reached_from_the_front_page():
    reached, ahead = set(), [FRONT]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        linked = (path for path, _ in links(page))
        names = {str(p.relative_to(ROOT.resolve())) for p in linked}
        ahead += (names & PAGES.keys()) - reached
    assert reached == PAGES.keys()


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_paths_are_those_of_the_repository(page):
    tops = "benchmarks|cli|components|docker|docs|models|notebooks|pipelines|scripts"
    named = re.findall(
        rf"`((?:{tops}|serving|tests)/[\w./-]*)`", (PAGES | OTHERS)[page]
    )
    for path in named:
        assert (ROOT / path).exists(), path
