import ast
import subprocess
import sys
from pathlib import Path

import boost_trl


PACKAGE = Path(boost_trl.__file__).parent
# A module may import its own layer and those to its left.
LAYERS = [
    {"losses", "selection", "cache_folder", "files", "tables"},
    {"models", "hub_names"},
    {"data", "metrics"},
    {"environments"},
    {"trainer"},
    {"analysis"},
    {"comparison"},
    {"scripts", "cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported_modules(path):
    package = ["boost_trl", *path.relative_to(PACKAGE).with_suffix("").parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])])


def test_imports_point_one_way():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        layer = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if layer == "__init__":
            continue
        for name in imported_modules(path):
            parts = name.split(".")
            if parts[0] == "boost_trl" and len(parts) > 1 and LEVEL[parts[1]] > LEVEL[layer]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_maths_knows_no_trainer_and_no_tokenizer():
    for layer in LAYERS[0]:
        for path in (PACKAGE / layer).rglob("*.py"):
            roots = {name.split(".")[0] for name in imported_modules(path)}
            assert not roots & {"transformers", "trl", "datasets", "accelerate"}, path


def test_import_alone_loads_no_torch():
    code = "import sys, boost_trl; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_public_name_is_importable():
    for name in boost_trl.__all__:
        assert getattr(boost_trl, name) is not None
