"""MkDocs hook: pages of the API reference, made of what the package says is public, and links to them from all other pages.

Nothing is imported: names are read off the files, docstrings by Griffe.
"""

import ast
import re
from functools import cache
from pathlib import Path

from mkdocs.structure.files import File


ROOT = Path(__file__).parents[2]
# Page -> its title, and the beginnings of the paths that it has.
PAGES = {
    "trainer": ("Trainers and their configurations", ["trainer"]),
    "models": ("Value heads, policies, reweighting heads", ["models"]),
    "environments": ("Environments, rollouts, self-play", ["environments"]),
    "worlds": (
        "The three worlds",
        [f"environments.{world}" for world in ("twenty_questions", "car_dealer", "webshop")],
    ),
    "data": ("Trajectories and other data", ["data"]),
    "comparison": ("Comparisons", ["comparison"]),
    "analysis": ("Analyses of weights", ["analysis"]),
    "losses": ("Losses and weights of offline RL", ["losses"]),
    "selection": ("Selection", ["selection"]),
}
FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)


def exported(init):
    """(name, module that defines it) of what a package's `__init__` makes public."""
    package = ".".join(init.parent.relative_to(ROOT).parts)
    assigned, defined_in = {}, {}
    for node in ast.parse(init.read_text()).body:
        if isinstance(node, ast.Assign):
            assigned[node.targets[0].id] = node.value
        elif isinstance(node, ast.ImportFrom) and node.level:
            defined_in |= {alias.name: f"{package}.{node.module}" for alias in node.names}
    if "_MODULE_OF" in assigned:
        return list(ast.literal_eval(assigned["_MODULE_OF"]).items())
    return (
        [(name, defined_in[name]) for name in ast.literal_eval(assigned["__all__"])] if "__all__" in assigned else []
    )


def imported_on_pages():
    """(name, module) of what else the code of a page imports from this package; constants are explained there."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        for module, names in re.findall(r"^from (boost_trl[\w.]*) import (.+)$", page.read_text(), flags=re.MULTILINE):
            for name in names.split("#")[0].split(","):
                name = name.split(" as ")[0].strip(" ()")
                if name and not name.isupper():
                    yield name, module


@cache
def public_names():
    """Path -> (name, package that a user imports it from)."""
    paths = {}
    for init in sorted((ROOT / "boost_trl").rglob("__init__.py"), key=lambda init: len(init.parts)):
        for name, module in exported(init):
            paths.setdefault(f"{module}.{name}", (name, ".".join(init.parent.relative_to(ROOT).parts)))
    known = {name for name, _ in paths.values()}
    for name, module in imported_on_pages():
        if name not in known or module.startswith("boost_trl.environments."):
            paths.setdefault(f"{module}.{name}", (name, module))
    return paths


def page_of(path):
    """The page with the longest beginning of a path."""
    fits = [(len(start), page) for page, (_, starts) in PAGES.items() for start in starts if f".{start}." in path]
    return max(fits)[1]


def api_page(page):
    ours = [(name, package, path) for path, (name, package) in public_names().items() if page_of(path) == page]
    lines = [f"# {PAGES[page][0]}", ""]
    for name, package, path in sorted(
        ours, key=lambda one: (page == "worlds" and one[2].split(".")[2], one[0].lower())
    ):
        heading = f"{path.split('.')[2]}: {name}" if page == "worlds" else name
        lines += [f"::: {path}", "    options:", f"      heading: '{heading}'", f"      toc_label: '{heading}'"]
        lines += ["      show_signature: false"] if name.endswith("Config") else []
        lines += ["", f"*Import:* `from {package} import {name}`", ""]
    return "\n".join(lines)


def linked(text):
    """`text` with links to the reference at public names in code, except in headings and in other links."""
    names = [name for name, _ in public_names().values()]
    path_of = {name: path for path, (name, _) in public_names().items() if names.count(name) == 1}

    def link(match):
        return f"[{match[0]}][{path_of[match[1]]}]" if match[1] in path_of else match[0]

    lines = text.split("\n")
    return "\n".join(line if line.startswith("#") else re.sub(r"(?<!\[)`(\w+)`(?!\])", link, line) for line in lines)


def on_files(files, config):
    for page in PAGES:
        files.append(File.generated(config, f"api/{page}.md", content=api_page(page)))
    return files


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri.startswith("api/"):
        return markdown
    texts, fences = FENCE.split(markdown), FENCE.findall(markdown)
    return "".join(linked(text) + fence for text, fence in zip(texts, [*fences, ""]))
