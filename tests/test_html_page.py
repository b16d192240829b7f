import base64
from html.parser import HTMLParser

from boost_trl.html_page import escape_markdown, html_page, markdown_to_html
from boost_trl.tables import markdown_table


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NASTY = [
    "<script>alert(1)</script>",
    "a | b || c",
    "*no* _emphasis_ `code` # 1. - ~",
    "![spy](https://example.org/x.png) [x](javascript:alert(1))",
    "back\\slash \\| and &amp; <b>",
    "{{ 7 * 7 }} {% raw %}",
]


class Reader(HTMLParser):
    """Texts of a page's table cells, and all its tags."""

    def __init__(self, page):
        super().__init__()
        self.cells, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data.strip("\n")


def test_text_of_rows_is_shown_letter_by_letter_and_does_nothing():
    rows = [["text", "n"], *([escape_markdown(text), "1"] for text in NASTY)]
    read = Reader(html_page("<i>title", markdown_to_html(markdown_table(rows))))
    assert read.cells[::2] == NASTY
    assert {tag for tag, _ in read.tags} <= set("html head meta title style body table thead tbody tr th td".split())


def test_even_unescaped_text_brings_no_script_and_nothing_from_the_network(tmp_path):
    text = "\n\n".join([*NASTY, "<img src=x onerror=alert(1)>", "![](//example.org/a.png)"])
    read = Reader(html_page("title", markdown_to_html(text, tmp_path)))
    assert not {"script", "img", "b", "iframe"} & {tag for tag, _ in read.tags}
    links = [attributes["href"] for tag, attributes in read.tags if tag == "a"]
    assert links == ["https://example.org/x.png", "//example.org/a.png"]


def test_pictures_of_the_folder_are_inside_the_page_and_no_other_file_is(tmp_path):
    folder = tmp_path / "run"
    (folder / "deep").mkdir(parents=True)
    for path in (folder / "a b.png", folder / "deep/c.png", tmp_path / "outside.png", folder / "notes.txt"):
        path.write_bytes(PIXEL)
    names = ["a%20b.png", "deep/c.png", "../outside.png", "notes.txt", "missing.png"]
    page = html_page("title", markdown_to_html("".join(f"![weights]({name})\n\n" for name in names), folder))
    pictures = [attributes for tag, attributes in Reader(page).tags if tag == "img"]
    expected = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
    assert [picture["src"] for picture in pictures] == [expected, expected]
    assert pictures[0]["alt"] == "weights"


def test_page_names_its_language_and_fits_a_phone():
    page = html_page(
        "Weights & <rows>", markdown_to_html("# Heading\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |"), "plain < text"
    )
    assert page.startswith("<!doctype html>") and '<meta name="viewport" content="width=device-width' in page
    assert "<title>Weights &amp; &lt;rows&gt;</title>" in page and "<h1>Heading</h1>" in page
    assert "plain &lt; text" in page
    assert "src=" not in page and "@import" not in page and "<script" not in page
