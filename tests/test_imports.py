import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import boost_trl


PACKAGE = Path(boost_trl.__file__).parent
# A module may import its own layer and those to its left.
LAYERS = [
    {
        "losses",
        "selection",
        "cache_folder",
        "files",
        "hidden_tokens",
        "hub_files",
        "hub_names",
        "smollm2_package",
        "lazy_names",
        "version",
        "tables",
        "html_page",
        "pictures",
    },
    {"models"},
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


def imported_files(path, modules):
    """The package's files that `path` imports anywhere: in functions and for type checkers alone as well."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ["boost_trl", *path.relative_to(PACKAGE).parts[:-1]]
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from package import module` imports the module, not the package's other files.
            submodules = {f"{module}.{alias.name}" for alias in node.names} & modules.keys()
            names |= submodules or {module}
    return {modules[name] for name in names & modules.keys()} - {path}


def import_circles():
    """The files of each circle of imports, one circle per group of files that import each other."""
    modules = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ["boost_trl", *path.relative_to(PACKAGE).with_suffix("").parts]
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {path: imported_files(path, modules) for path in modules.values()}
    circles = []
    while True:
        try:
            graphlib.TopologicalSorter(graph).prepare()
            return circles
        except graphlib.CycleError as error:
            circle = error.args[1]
            circles.append(" → ".join(str(path.relative_to(PACKAGE)) for path in reversed(circle)))
            graph[circle[1]].discard(circle[0])


def test_no_two_files_need_each_other():
    circles = import_circles()
    assert not circles, "\n".join(circles)


def test_the_maths_knows_no_trainer_and_no_tokenizer():
    for layer in LAYERS[0]:
        for path in (PACKAGE / layer).rglob("*.py"):
            roots = {name.split(".")[0] for name in imported_modules(path)}
            assert not roots & {"transformers", "trl", "datasets", "accelerate"}, path


def test_import_alone_loads_no_torch():
    code = "import sys, boost_trl.trainer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_public_name_is_importable():
    for name in boost_trl.__all__:
        assert getattr(boost_trl, name) is not None
    for name in boost_trl.trainer.__all__:
        assert getattr(boost_trl.trainer, name) is getattr(boost_trl, name)
