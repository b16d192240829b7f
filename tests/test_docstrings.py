"""Docstrings and error messages of the package have one form, that of CONTRIBUTING.md."""

import ast
import re
from pathlib import Path

import boost_trl


PACKAGE = Path(boost_trl.__file__).parent
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
QUESTION = re.compile(r"(What|How|Where|Whether|Which|When|Why|Who)\b")
# `name (type):` and nothing behind it
BARE_ENTRY = re.compile(r"^ +[\w*]+ \((?:[^()]|\([^()]*\))*\):$", re.MULTILINE)


def docstrings():
    """(where, node, docstring as written) of every module, class and function."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
                name = getattr(node, "name", "module")
                yield f"{path.relative_to(PACKAGE)}: {name}", node, ast.get_docstring(node, clean=False)


def error_messages():
    """(where, text of the literal, {} for each value) of every message of an error that is made in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error")):
                continue
            for argument in node.args[:1]:
                parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
                if all(isinstance(part, ast.Constant | ast.FormattedValue) for part in parts):
                    text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text


def is_config(node):
    return getattr(node, "name", "").startswith("Bilevel") and node.name.endswith("Config")


def answers_a_question(node):
    return isinstance(node, ast.FunctionDef) and node.returns is not None and ast.unparse(node.returns) == "bool"


def test_docstrings_name_the_thing_first():
    found = list(docstrings())
    assert len(found) > 500
    assert not [where for where, node, text in found if QUESTION.match(text.strip()) and not answers_a_question(node)]


def test_docstrings_begin_on_the_line_of_the_quotes():
    assert not [where for where, node, text in docstrings() if text.startswith("\n") and not is_config(node)]


def test_arguments_are_explained_on_the_line_of_their_name():
    assert not [where for where, node, text in docstrings() if BARE_ENTRY.search(text) and not is_config(node)]


def test_error_messages_have_one_form():
    found = list(error_messages())
    assert len(found) > 200
    ends = [(where, text) for where, text in found if text.endswith(".") and not text.endswith("..")]
    begins = [(where, text) for where, text in found if re.match(r"(The|A|An|This|All|Both|Row|Column|No|For) ", text)]
    values = [(where, text) for where, text in found if re.match(r"`?[\w{}]+`? is \{\}; (it must|choose)", text)]
    assert not ends and not begins and not values
