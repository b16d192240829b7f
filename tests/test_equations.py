"""`docs/equations.md` and the citations of its numbers."""

import re
from pathlib import Path


ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "equations.md"
FOLDERS = ("boost_trl", "docs", "examples", "benchmarks", "tests")
SUFFIXES = (".py", ".md", ".yaml")
# "equation (4)", "equations (4), (5) and (7)", "equations (13)–(15)"
CITATION = re.compile(r"[Ee]quations?[\s*#]+((?:\(\d+\)(?:–|,\s| and |, and | or )?)+)")
# A displayed equation of a docstring, its number at the end of the line.
DISPLAYED = re.compile(r" {5}(\(\d+\))$", re.MULTILINE)


def sources():
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    return [*files, *ROOT.glob("*.md")]


def numbers():
    return [int(number) for number in re.findall(r"\\tag\{(\d+)\}", PAGE.read_text())]


def test_equations_are_numbered_in_their_order():
    assert numbers() == list(range(1, len(numbers()) + 1)) and len(numbers()) > 20


def test_every_displayed_formula_has_a_number():
    formulas = re.findall(r"```math\n(.+?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(formulas) == len(numbers()) and all(r"\tag{" in formula for formula in formulas)


def test_every_cited_equation_exists():
    known, cited = set(numbers()), []
    for path in sources():
        text = path.read_text()
        for citation in CITATION.findall(text) + DISPLAYED.findall(text):
            cited += [(path.name, int(number)) for number in re.findall(r"\d+", citation)]
    assert len(cited) > 40 and not [entry for entry in cited if entry[1] not in known]


def test_both_papers_are_defined_once():
    for name in ("[B]", "[S]"):
        definitions = [path.name for path in sources() if f"- **{name}**" in path.read_text() and path.suffix == ".md"]
        assert definitions == ["equations.md"]


def test_only_the_page_itself_cites_the_papers_numbers():
    """And no file cites a specification that is not in the repository."""
    foreign = re.compile(r"(?<![\w.\])}])\((10[abc]|4[2-8])\)|\b" + "SP" + r"EC\b")
    cited = [(path.name, m.group()) for path in sources() if path != PAGE for m in foreign.finditer(path.read_text())]
    assert not cited
