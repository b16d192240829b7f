import re
from pathlib import Path


PAGE = (Path(__file__).parents[3] / "docs" / "car_dealer.md").read_text(encoding="utf-8")


def test_the_pages_code_runs_and_its_games_are_what_the_code_plays():
    names, games = {}, 0
    for language, block in re.findall(r"```(\w*)\n(.*?)```", PAGE, flags=re.DOTALL):
        if language == "python":
            # The page's own code, with a smaller pool.
            exec(compile(block.replace("n=4400", "n=20"), "car_dealer.md", "exec"), names)
        elif "\n> " in block:
            said = re.split(r"^> (.*)\n", block, flags=re.MULTILINE)
            heard, actions = [" ".join(text.split()) for text in said[::2]], said[1::2]
            steps = [names["env"].step(action) for action in actions]
            assert heard == [names["observation"], *(step[0] for step in steps)]
            assert [step[2] for step in steps] == [False] * (len(steps) - 1) + [True]
            games += 1
    assert games == 2 and len(names["pool"]) == 20
