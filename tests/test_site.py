"""`make docs`: the site builds without a warning, and what GitHub shows as a formula or a link is one there too."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from urllib.parse import unquote, urlsplit

import pytest

import boost_trl


ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


class Parsed(HTMLParser):
    """Links, anchors, number of formulas and text outside of code of a built page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.formulas, self.text, self._in_code = [], set(), 0, "", 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")} - {None}
        self.links += [attributes[name] for name in ("href", "src") if attributes.get(name)]
        self.formulas += tag == "math"
        self._in_code += tag in ("code", "script", "style")

    def handle_endtag(self, tag):
        self._in_code -= tag in ("code", "script", "style")

    def handle_data(self, data):
        self.text += "" if self._in_code else data


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """File -> what is in it, of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return {path: Parsed(path) for path in folder.rglob("*.html")}


def test_links_and_anchors_of_the_site_lead_somewhere(site):
    broken, checked = [], 0
    for path, page in site.items():
        for link in page.links:
            url = urlsplit(link)
            if path.name == "404.html" or url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path not in ("", ".") else path
            checked += 1
            if not target.exists() or (url.fragment and target in site and url.fragment not in site[target].anchors):
                broken.append((path.name, link))
    assert checked > 1000 and not broken


def test_pages_load_nothing_from_the_network(site):
    html = {path: path.read_text(encoding="utf-8") for path in site}
    loaded = (
        r"<(?:script|img|iframe)[^>]+src=\"https?://|<link[^>]+rel=\"(?:stylesheet|preconnect)\"[^>]+href=\"https?://"
    )
    assert not [path.name for path, text in html.items() if re.search(loaded, text)]


def test_every_public_name_is_in_the_reference(site):
    anchors = set().union(*(page.anchors for path, page in site.items() if path.parent.name == "api"))
    packages = [boost_trl.__name__]
    packages += [module.name for module in walk_packages(boost_trl.__path__, "boost_trl.") if module.ispkg]
    checked = 0
    for package in map(import_module, packages):
        for name in set(getattr(package, "__all__", [])) - {"__version__"}:
            value = getattr(package, name)
            assert value.__doc__, f"{package.__name__}.{name} has no docstring"
            assert f"{value.__module__}.{name}" in anchors, f"{package.__name__}.{name} is not in the reference"
            checked += 1
    assert checked > 70


def test_every_formula_is_one_on_the_site(site):
    built = {path.stem: page for path, page in site.items() if path.parent.name != "api"}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = len(re.findall(r"^```math$|^\$\$", text, flags=re.MULTILINE))
        assert built[page.stem].formulas >= blocks, page.name
    assert sum(page.formulas for page in site.values()) > 100


def test_nothing_is_left_that_only_one_reader_understands(site):
    marks = re.compile(r"\[\[|:::|\\\(|\\frac|\$\$|\$`|\[`|\*\*(?!\w+kwargs|kwargs)")
    left = {(path.name, mark) for path, page in site.items() for mark in marks.findall(page.text)}
    assert not left


def test_pages_have_no_directives_that_github_shows_as_they_are():
    directive = re.compile(r"^:::|\[\[autodoc|\[`[\w.~]+`\](?![(\[])", flags=re.MULTILINE)
    assert not [page.name for page in PAGES if directive.search(page.read_text(encoding="utf-8"))]


def test_the_config_has_all_its_pages_in_the_order_of_its_menu():
    menu = re.findall(r"- (?:[\w ?]+: )?([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert menu[0] == "index.md" and {page.name for page in PAGES} <= set(menu) and len(set(menu)) == len(menu)
