import re
from pathlib import Path


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


def test_every_page_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert not [page.name for page in PAGES[2:] if f"docs/{page.name}" not in readme]
