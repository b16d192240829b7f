"""Tables as text, and that nothing else in the package writes any."""

import re
from pathlib import Path

import boost_trl
from boost_trl.tables import markdown_table, number, plus_minus, text_table


ROWS = [["method", "x"], ["a", "1.0"]]


def test_text():
    assert text_table(ROWS) == "method    x\n-----------\na       1.0"


def test_markdown():
    assert markdown_table(ROWS) == "| method | x |\n| --- | ---: |\n| a | 1.0 |"
    assert markdown_table(ROWS, "rl") == "| method | x |\n| ---: | --- |\n| a | 1.0 |"


def test_a_cell_cannot_end_its_column_or_row():
    assert markdown_table([["q"], ["a | b\nc"]]).splitlines() == ["| q |", "| --- |", "| a \\| b c |"]


def test_numbers():
    assert (number(None), number(0.125, ".0%"), number(2.0)) == ("–", "12%", "2.00")
    assert plus_minus(-0.5, 0.25) == "-0.50 ± 0.25" and plus_minus(1, 0.5, "+.1f") == "+1.0 ± 0.5"


def test_no_other_module_writes_a_rule_of_a_table():
    root = Path(boost_trl.__file__).parent
    for path in [*root.rglob("*.py"), *(root.parent / "examples").glob("*.py")]:
        code = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
        assert path.name == "tables.py" or not re.search(r"\|---|--- ?\||---:", code), f"{path}: use boost_trl.tables"
