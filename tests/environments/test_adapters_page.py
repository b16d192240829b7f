import re
from pathlib import Path

from boost_trl.environments.base import Environment


PAGE = Path(__file__).parents[2] / "docs" / "environments_and_trl.md"


def test_the_pages_environment_plays_and_trains(capsys):
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)  # the page's own code
    assert isinstance(names["HigherLower"](), Environment)
    assert names["games"]["success"] == [True] + [False] * 9  # of the fifties, 50 is found by who always says 50
    assert "What is the number? Right. 6.0" in capsys.readouterr().out


def test_the_pages_other_blocks_import_what_exists():
    for block in re.findall(r"```python no-run\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        compile(block, str(PAGE), "exec")
        for line in block.splitlines():
            if line.startswith("from boost_trl"):
                exec(line, {})
