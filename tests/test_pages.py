import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

from boost_trl.comparison.offline_rl.methods import METHODS
from boost_trl.comparison.sft.methods import SFT_METHODS
from boost_trl.trainer.common.weight_files import KIND_COLUMNS


ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def found(pattern):
    """(page, match) for every match in any page."""
    return [(page, match) for page in PAGES for match in re.findall(pattern, page.read_text(), flags=re.MULTILINE)]


def headings(page):
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_links_between_pages_lead_somewhere():
    links = found(r"\]\((?!https?://|#)([^)#\s]+)")
    assert links and not [(page.name, target) for page, target in links if not (page.parent / target).exists()]


def test_links_to_headings_lead_somewhere():
    links = found(r"\]\((?!https?://)([^)#\s]*)#([^)\s]+)\)")
    assert links and not [
        (page.name, path, anchor)
        for page, (path, anchor) in links
        if anchor not in headings(page.parent / path if path else page)
    ]


def test_commands_name_scripts_and_configs_that_exist():
    named = found(r"\b(?:examples|benchmarks)/[\w/]+\.(?:py|yaml)")
    assert named and not [(page.name, path) for page, path in named if not (ROOT / path).is_file()]


def test_every_page_is_linked_from_the_first_one_and_that_from_the_readme():
    index = (ROOT / "docs" / "index.md").read_text()
    assert not [page.name for page in PAGES[2:] if f"]({page.name})" not in index and page.name != "index.md"]
    assert "](docs/index.md)" in (ROOT / "README.md").read_text()


def python_blocks():
    """(page, syntax tree) of every block of code; a console's lines have their prompts taken off."""
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
            lines = block.splitlines()
            if block.startswith(">>>"):
                lines = [line[4:] for line in lines if line[:3] in (">>>", "...")]
            yield page.name, ast.parse("\n".join(lines))


def test_names_and_arguments_in_code_exist():
    checked = 0
    for page, tree in python_blocks():
        ours = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "boost_trl":
                for alias in node.names:
                    ours[alias.asname or alias.name] = getattr(import_module(node.module), alias.name, None)
                    assert ours[alias.asname or alias.name] is not None, (page, node.module, alias.name)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ours:
                parameters = inspect.signature(ours[node.func.id]).parameters
                is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
                names = {keyword.arg for keyword in node.keywords} - {None}
                assert is_open or names <= parameters.keys(), (page, node.func.id, names - parameters.keys())
                checked += 1
    assert checked > 20


def test_modules_and_names_in_sentences_exist():
    named = found(r"`(boost_trl(?:\.\w+)+)(?=[`(])")
    assert named
    for _, name in named:
        resolve_name(name)


def table_under(page, heading):
    """Cells of the rows of the first table under a heading."""
    text = (ROOT / "docs" / page).read_text().split(f"# {heading}\n", 1)[1]
    lines = text[text.index("\n|") :].strip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_methods_on_pages_are_those_that_there_are():
    found = table_under("compare.md", "The methods for trajectories")
    assert found == [[f"`{name}`", method.label, method.about] for name, method in METHODS.items()]
    named = {
        name for names, _ in table_under("sft_example.md", "The methods") for name in re.findall(r"`(\w+)`", names)
    }
    assert named == SFT_METHODS.keys()


def test_columns_on_pages_are_those_that_there_are():
    for page in ("bilevel_sft_self_refine_trainer.md", "bilevel_offline_rl_trainer.md"):
        found = {
            name for row in table_under(page, "Columns of the weights") for name in re.findall(r"`(\w+)`", row[0])
        }
        assert found - {"return", "turn_weights"} == {"index", "weight", "score", "text", *KIND_COLUMNS}
        assert ("return" in found) == ("rl" in page)


def test_extras_exist_and_are_explained():
    setup = (ROOT / "setup.py").read_text()
    extras = {
        *re.findall(r'^    "([\w-]+)": \[', setup, re.MULTILINE),
        *re.findall(r'^EXTRAS\["([\w-]+)"\]', setup, re.MULTILINE),
    }
    table = (ROOT / "docs" / "installation.md").read_text().split("| extra | for |")[1].split("\n\n")[0]
    explained = {
        name
        for row in table.splitlines()
        for name in re.findall(r"`([\w-]+)`", row.split("|")[1] if "|" in row else "")
    }
    assert explained == extras
    named = {name for _, names in found(r"boost_trl\[([\w,-]+)\]") for name in names.split(",")}
    assert named and named <= extras


def test_the_versions_that_were_tested_are_those_that_are_asked_for():
    setup, constraints = (ROOT / "setup.py").read_text(), (ROOT / "constraints.txt").read_text()
    table = (ROOT / "docs" / "installation.md").read_text().split("| library | oldest | newest |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (\w+) \| (\S+) \| (\S+) \|", table, re.MULTILINE)
    assert len(rows) == 7
    for name, oldest, newest in rows:
        (asked,) = re.findall(rf'^    "{name}>=([\d.]+)', setup, re.MULTILINE)
        assert name == "torch" or oldest.startswith(f"{asked}."), name
        pinned = re.search(rf"^{name}==(.+)$", constraints, re.MULTILINE)
        assert pinned is None or pinned[1] == newest, name


def test_targets_of_make_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = found(r"(?:^|`)make ([\w-]+)")
    assert named and not [(page.name, target) for page, target in named if target not in targets]
