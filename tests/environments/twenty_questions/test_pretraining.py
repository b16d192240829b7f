import math

from boost_trl.environments.embedded_lm import (
    END,
    render,
    word_tokenizer,
)
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories
from boost_trl.environments.twenty_questions.pretraining import (
    pretraining_episodes,
    pretraining_facts,
    small_vocabulary,
)


def test_what_the_embedded_model_reads():
    env = TwentyQuestions()
    world = env.world
    tokenizer = word_tokenizer(small_vocabulary())
    facts, dialogues = render(pretraining_facts(world, 300)), render(pretraining_episodes(world, 300))
    assert (
        render(pretraining_episodes(world, 20)) == dialogues[:20]
        and render(pretraining_episodes(world, 20, seed=1)) != dialogues[:20]
    )
    for text in facts + dialogues:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids and len(ids) <= 128 and text.endswith(END)
    joined = " ".join(dialogues)
    assert all(category in joined for category in world.categories)
    won = [text.endswith(f"yes{END}") for text in dialogues]
    assert 0.3 < sum(won) / len(won) < 0.95  # mediocre policies
    for fact in facts[:50]:
        *pairs, guess, yes = fact.removesuffix(END).split(END)
        item = next(item for item in world.items if item.guess == guess)
        assert yes == "yes"
        assert pairs[1::2] == [world.answer(question, item) for question in pairs[::2]]
    # Its random numbers are not the pool's: what coincides are a few one- and two-question games.
    pool = offline_trajectories(env, 300, seed=0)
    rendered = tokenizer.apply_chat_template([row["messages"] for row in pool], tokenize=False)
    seen = [any(text.startswith(row) for text in dialogues) for row in rendered]
    assert not any(repeated and len(row["rewards"]) > 2 for repeated, row in zip(seen, pool))
    assert math.isclose(sum(seen), 0, abs_tol=9)
