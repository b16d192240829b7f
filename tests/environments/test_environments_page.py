import re
from pathlib import Path

from boost_trl.environments.base import Environment
from boost_trl.environments.synthetic import SyntheticRules


PAGE = Path(__file__).parents[2] / "docs" / "environments.md"


def test_the_pages_examples_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)  # the page's own code
    assert isinstance(names["GuessNumber"](), Environment) and isinstance(names["GuessRules"](), SyntheticRules)
    assert len(names["games"]) == 5 and all(names["games"]["success"])
    assert "'reward_mean': 2.1, 'reward_se': 0.1" in capsys.readouterr().out


def test_the_pages_rules_judge_by_the_words():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = {}
    exec(compile(blocks[-1], str(PAGE), "exec"), names)
    rules = names["GuessRules"]()
    messages = [{"role": "user", "content": "It is odd."}, {"role": "assistant", "content": "3"}]
    won = [*messages, {"role": "user", "content": "Right."}]
    lost = [*messages, {"role": "user", "content": "Higher."}]
    assert rules.rewards_from_text(won, None) == ([0.0], True, 4.0, True) and rules.is_terminal(won)
    assert rules.rewards_from_text(lost, None) == ([-1.0], False, 0.0, False) and not rules.is_terminal(lost)
