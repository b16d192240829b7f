from pathlib import Path

from page_code import python_blocks

from boost_trl.environments.base import Environment
from boost_trl.environments.synthetic import SyntheticRules


PAGE = Path(__file__).parents[2] / "docs" / "environments.md"
SYNTHETIC_DATA = PAGE.with_name("synthetic_data.md")


def test_the_pages_examples_run(capsys):
    names = {}
    for page in (PAGE, SYNTHETIC_DATA):
        for block in python_blocks(page.read_text(encoding="utf-8")):
            exec(compile(block, str(page), "exec"), names)  # the pages' own code
    assert isinstance(names["GuessNumber"](), Environment) and isinstance(names["GuessRules"](), SyntheticRules)
    assert len(names["games"]) == 5 and all(names["games"]["success"])
    assert "'score_mean': 2.1, 'score_se': 0.1" in capsys.readouterr().out


def test_the_pages_game_is_as_short_as_it_says_and_takes_any_text():
    text = PAGE.read_text(encoding="utf-8")
    code = text.split("## Your own in thirty lines of code\n\n```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    env = names["GuessNumber"]()
    env.reset(task="3")
    for action in ("\u00b2", "9" * 5000, "", None):
        said, reward, over, _, info = env.step(action)
        assert (said, reward, over, info["valid"]) == ("Say a digit.", -1.0, False, False)
    assert env.step("3")[4].items() >= {"success": True, "score": 0.0, "step": 5}.items()


def test_the_pages_rules_judge_by_the_words():
    (block,) = python_blocks(SYNTHETIC_DATA.read_text(encoding="utf-8"))
    names = {}
    exec(compile(block, str(SYNTHETIC_DATA), "exec"), names)
    rules = names["GuessRules"]()
    messages = [{"role": "user", "content": "It is odd."}, {"role": "assistant", "content": "3"}]
    won = [*messages, {"role": "user", "content": "Right."}]
    lost = [*messages, {"role": "user", "content": "Higher."}]
    assert rules.rewards_from_text(won, None) == ([0.0], True, 4.0, True) and rules.is_terminal(won)
    assert rules.rewards_from_text(lost, None) == ([-1.0], False, 0.0, False) and not rules.is_terminal(lost)
