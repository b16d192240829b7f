"""Griffe extension: docstrings in Hugging Face's style become Markdown, as its own doc-builder reads them."""

import re
import textwrap

import griffe


SECTION = re.compile(r"^(Args|Parameters|Attributes|Returns|Raises|Yields|Example):$")
GROUP = re.compile(r"^> (.+)$")
# `name (type): text`, where several names may share a text and a type may hold brackets.
NAME = r"[\w.*]+(?: \((?:[^()]|\([^()]*\))*\))?"
ENTRY = re.compile(rf"^(?P<names>{NAME}(?:, {NAME})*):\s*(?P<text>.*)$", re.DOTALL)


def entries_of(lines):
    """Text of each entry: a line that is not indented begins one."""
    entries = []
    for line in lines:
        if line.strip() and (not line.startswith(" ") or not entries):
            entries.append(line)
        elif entries:
            entries[-1] += "\n" + line
    return entries


def bold(name):
    return "**" + name[0].replace("*", r"\*") + "**"


def entry_markdown(entry):
    head, _, rest = entry.partition("\n")
    if group := GROUP.match(head):
        return f"\n**{group[1]}**\n"
    # What comes below the first line is indented by however much its author chose.
    text = head + "\n" + textwrap.dedent(rest)
    if not (found := ENTRY.match(text)):
        return text
    names = re.sub(rf"({NAME})", lambda name: re.sub(r"^[\w.*]+", bold, name[0]), found["names"])
    return f"- {names}: {textwrap.indent(found['text'].strip(), '    ').lstrip()}"


def section_markdown(title, lines):
    body = textwrap.dedent("\n".join(lines)).strip("\n")
    if title not in ("Example", "Returns", "Yields"):
        body = "\n".join(entry_markdown(entry) for entry in entries_of(body.split("\n")))
    return f"**{title.replace('Args', 'Parameters')}**\n{{ .docstring-section }}\n\n{body}\n"


def to_markdown(text):
    """A whole docstring: its sections have titles and lists, its formulas dollars, its `[`names`]` no brackets."""
    parts, title, lines = [], None, []

    def close():
        parts.append(section_markdown(title, lines) if title else "\n".join(lines))

    for line in text.split("\n"):
        if found := SECTION.match(line):
            close()
            title, lines = found[1], []
        elif title and line.strip() and not line.startswith(" "):  # text again
            if title == "Example":
                lines.append(line)
                continue
            close()
            title, lines = None, [line]
        else:
            lines.append(line)
    close()
    markdown = "\n\n".join(parts)
    markdown = re.sub(r"\[`~?([\w.]+)`\](?!\()", r"`\1`", markdown)
    return re.sub(r"\\\\\( ?(.*?) ?\\\\\)", r"$\1$", markdown, flags=re.DOTALL)


class HuggingFaceDocstrings(griffe.Extension):
    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)
