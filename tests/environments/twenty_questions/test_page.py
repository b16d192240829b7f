import re
from pathlib import Path

from boost_trl.environments.twenty_questions.full_world import full_world


PAGE = (Path(__file__).parents[3] / "docs" / "twenty_questions.md").read_text(encoding="utf-8")


def test_the_pages_examples_run():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "twenty_questions.md", "exec"), names)  # the page's own code
    assert names["result"]["success_rate"] == 1.0


def test_the_page_counts_right():
    world = full_world()
    counts = (len(world.items), len(world.categories), len(world.questions) - len(world.category_questions))
    assert counts == (170, 17, 114)
    assert (
        f"{counts[0]} everyday objects in {counts[1]} categories" in PAGE and f"{counts[2]} about attributes" in PAGE
    )
