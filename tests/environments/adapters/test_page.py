import re
from pathlib import Path


PAGE = Path(__file__).parents[3] / "docs" / "environments_and_trl.md"


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_pages_environment_plays_and_trains(capsys):
    names = {}
    contract = PAGE.with_name("environments.md").read_text(encoding="utf-8")
    game = next(block for block in blocks(contract) if "class GuessNumber" in block)  # which the page links to
    for block in [game, *blocks(PAGE.read_text(encoding="utf-8"))]:
        exec(compile(block, str(PAGE), "exec"), names)  # the pages' own code
    assert names["games"]["success"] == [False, False, True, False, False]  # 5 is found by who always says 5
    assert "It is even. Right. 4.0" in capsys.readouterr().out


def test_the_pages_other_blocks_import_what_exists():
    unrun = re.findall(r"```python no-run\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert any("from boost_trl" in block for block in unrun)
    for block in unrun:
        compile(block, str(PAGE), "exec")
        for line in block.splitlines():
            if line.startswith("from boost_trl"):
                exec(line, {})
