from pathlib import Path

from page_code import python_blocks


PAGE = Path(__file__).parents[3] / "docs" / "environments_and_trl.md"


def test_the_pages_environment_plays_and_trains(capsys):
    names = {}
    contract = PAGE.with_name("environments.md").read_text(encoding="utf-8")
    game = next(block for block in python_blocks(contract) if "class GuessNumber" in block)  # which the page links to
    for block in [game, *python_blocks(PAGE.read_text(encoding="utf-8"))]:
        exec(compile(block, str(PAGE), "exec"), names)  # the pages' own code
    assert names["games"]["success"] == [False, False, True, False, False]  # 5 is found by who always says 5
    assert "It is even. Right. 4.0" in capsys.readouterr().out


def test_the_pages_other_blocks_import_what_exists():
    unrun = python_blocks(PAGE.read_text(encoding="utf-8"), run=False)
    assert any("from boost_trl" in block for block in unrun)
    for block in unrun:
        compile(block, str(PAGE), "exec")
        for line in block.splitlines():
            if line.startswith("from boost_trl"):
                exec(line, {})
