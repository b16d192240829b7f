"""The wheel that users install has all that the package needs, outside of the repository; and the files around it are in order."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import boost_trl


ROOT = Path(__file__).parents[1]
PACKAGE = Path(boost_trl.__file__).parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of copies, since setuptools writes beside what it builds."""
    pytest.importorskip("build")
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(PACKAGE, source / "boost_trl", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(source / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([*(source / "dist").glob("*.tar.gz")]) == 1
    (found,) = (source / "dist").glob("*.whl")
    return found


def test_it_has_every_file_of_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    ours = {str(path.relative_to(PACKAGE.parent)) for path in PACKAGE.rglob("*") if path.is_file()}
    ours = {name for name in ours if "__pycache__" not in name}
    assert {name for name in names if ".dist-info/" not in name} == ours
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.fixture(scope="module")
def output(wheel, tmp_path_factory):
    """What a command prints where nothing but the installed wheel is."""
    folder = tmp_path_factory.mktemp("elsewhere")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*pip, str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(folder)}

    def run(*command):
        command = [str(folder / "bin" / word) if word == "boost-trl" else word for word in command]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_it_runs_outside_of_the_repository(output):
    assert "usage: boost-trl COMMAND" in output("boost-trl", "--help")
    assert output("boost-trl", "--version").strip() == boost_trl.__version__
    assert "--watch" in output("boost-trl", "rollout", "--help")
    assert "--noise" in output("boost-trl", "demo", "--help")
    code = (
        "import boost_trl; print(boost_trl.__file__)\n"
        "for name in ('twenty_questions', 'car_dealer', 'webshop'): boost_trl.make_env(name).reset(seed=0)"
    )
    assert not Path(output(sys.executable, "-c", code).strip()).is_relative_to(ROOT)


@pytest.mark.slow
def test_the_demo_runs_outside_of_the_repository_and_its_policy_plays(output):
    small = "--dialogues 120 --validation_rows 10 --max_steps 20 --games 8 --validation_games 4".split()
    printed = output("boost-trl", "demo", "--methods", "vanilla", "validated", *small, "--output_dir", "demo")
    assert "demo/report.html has the table" in printed
    (play,) = [line[line.index("boost-trl") :] for line in printed.splitlines() if "boost-trl rollout" in line]
    assert "assistant: " in output(*shlex.split(play))


def test_the_citation_names_both_papers_as_the_readme_does():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    readme = re.sub(r"[{}]", "", (ROOT / "README.md").read_text())
    for paper in citation["references"]:
        authors = " and ".join(f"{person['given-names']} {person['family-names']}" for person in paper["authors"])
        assert paper["title"] in readme and authors in readme
        assert all(entry["value"].split(":")[1] in readme for entry in paper.get("identifiers", ()))


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_issue_forms_are_ones(path):
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= form.keys()
    assert all(part["type"] in ("textarea", "checkboxes") and part["attributes"]["label"] for part in form["body"])
    assert len({part["id"] for part in form["body"]}) == len(form["body"])
