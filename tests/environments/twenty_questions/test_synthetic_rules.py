import pytest

from boost_trl import generate_synthetic, validate_trajectories
from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer
from boost_trl.environments.synthetic import SyntheticRules
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories
from boost_trl.environments.twenty_questions.pretraining import small_vocabulary


def dialogue(*turns):
    roles = ["user", "assistant"] * len(turns)
    return [{"role": role, "content": content} for role, content in zip(roles, turns)]


@pytest.mark.parametrize(
    ("reward", "won", "lost"), [("step_cost", [-1, 0], [-1, -1, -1]), ("score", [0, 1], [0, 0, 0])]
)
def test_a_dialogue_is_judged_by_its_words(reward, won, lost):
    env = TwentyQuestions(max_questions=3, reward=reward)
    rules, task = env.synthetic_rules(), env.tasks()[0]
    assert isinstance(rules, SyntheticRules) and rules.max_turns == 3
    game = dialogue("category: metals", "very heavy?", "yes heavy", "number nine?", "yes")
    assert [rules.is_terminal(game[:length]) for length in range(1, 6)] == [False] * 4 + [True]
    assert rules.rewards_from_text(game, task) == (won, True, 1.0, True)
    game = dialogue("category: metals", "very heavy?", "yes heavy", "number nine?", "no", "number one?", "mumble")
    assert [rules.is_terminal(game[:length]) for length in range(1, 8)] == [False] * 6 + [True]
    assert rules.rewards_from_text(game, task) == (lost, True, 0.0, False)
    assert rules.rewards_from_text(game[:5], task) == (lost[:2], False, 0.0, False)


def test_the_papers_prompts():
    env = TwentyQuestions(world="full")
    rules, task = env.synthetic_rules(), env.tasks(["Tools"])[0]
    assert rules.agent_prompt(task).startswith("Welcome to the game of Twenty Questions!")
    assert "hammer" not in rules.agent_prompt(task) and "hammer" in rules.environment_prompt(task)


def test_a_model_plays_both_roles():
    env = TwentyQuestions(max_questions=4)
    tokenizer = word_tokenizer(small_vocabulary())
    model = tiny_gpt2(tokenizer, hidden_size=16, num_layers=1, num_heads=2).eval()
    rows = offline_trajectories(env, 6, seed=0)
    synthetic = generate_synthetic(model, tokenizer, rows, env, max_new_tokens=4, progress=False)
    validate_trajectories(synthetic)
    assert [row["messages"][:2] for row in synthetic] == [row["messages"][:2] for row in rows]
    assert set(synthetic["source"]) == {"synthetic"} and max(map(len, synthetic["rewards"])) <= 4
