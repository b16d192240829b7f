"""One HTML page from Markdown, with everything in the one file: pictures inside, no scripts, nothing from the network."""

import base64
import mimetypes
import re
from pathlib import Path
from urllib.parse import unquote

from jinja2 import Environment, PackageLoader
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup


TEMPLATES = Environment(
    loader=PackageLoader("boost_trl", "html_templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{}~])")


def html_page(title: str, *parts: Markup) -> str:
    """A whole page that reads well on a phone and on a desktop.

    Args:
        title (`str`): of the browser's tab; plain text.
        parts (`Markup`): HTML of the body, such as [`markdown_to_html`] makes. A plain `str` is shown as it is.
    """
    return TEMPLATES.get_template("page.html.jinja").render(title=title, parts=parts)


def markdown_to_html(text: str, folder: str | Path | None = None) -> Markup:
    """HTML of Markdown with tables. HTML in `text` is shown as text, so that no row of a dataset can act on the page.

    Args:
        text (`str`): Markdown.
        folder (`str` or `Path`, *optional*): where the pictures that it names are, itself or deeper. They are put into the
            page; any other picture, a remote one for example, becomes a link.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    blocks = markdown.parse(text)
    for block in blocks:
        if block.children:
            block.children = [part for token in block.children for part in _with_picture(token, folder)]
    return Markup(markdown.renderer.render(blocks, markdown.options, {}))


def escape_markdown(text: str) -> str:
    """`text` on one line such that Markdown shows it letter by letter; `|` is left to
    [`~boost_trl.tables.markdown_table`]."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(text.split()))


def _with_picture(token: Token, folder: str | Path | None) -> list[Token]:
    if token.type != "image":
        return [token]
    source = str(token.attrs["src"])
    picture = _data_uri(source, folder)
    if picture is not None:
        token.attrs["src"] = picture
        return [token]
    words = Token("text", "", 0, content=token.content or source)
    return [Token("link_open", "a", 1, attrs={"href": source}), words, Token("link_close", "a", -1)]


def _data_uri(source: str, folder: str | Path | None) -> str | None:
    """A picture as a data URI; `None` if `source` is none in `folder`."""
    if folder is None:
        return None
    folder = Path(folder).resolve()
    path = (folder / unquote(source)).resolve()
    kind = mimetypes.guess_type(path.name)[0] or ""
    if not (kind.startswith("image/") and path.is_relative_to(folder) and path.is_file()):
        return None
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
