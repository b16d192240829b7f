import math

from boost_trl.environments.embedded_lm import (
    END,
    render,
    word_tokenizer,
)
from boost_trl.environments.twenty_questions import pretraining
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


def test_a_model_in_doubt_reads_as_much_of_the_changed_world(monkeypatch):
    monkeypatch.setattr(pretraining, "NUM_TEXTS", 400)
    read = {}
    monkeypatch.setattr(
        pretraining, "build_from_texts", lambda name, words, stages, **options: read.update({name: stages})
    )
    for doubts in (None, 3):
        pretraining.build_embedded_lm(world_seed=3, doubts=doubts)
    world = TwentyQuestions(world="small", seed=3).world

    def agrees(text, world):
        *pairs, guess, _ = text.removesuffix(END).split(END)
        item = next(item for item in world.items if item.guess == guess)
        return pairs[1::2] == [world.answer(question, item) for question in pairs[::2]]

    (certain, _), (torn, _) = (
        read[name][0] for name in ("twenty_questions-small-3", "twenty_questions-small-3-doubts-3")
    )
    assert len(certain) == len(torn) == 400 and all(agrees(text, world) for text in certain)
    for half in (torn[:200], torn[200:]):
        assert 90 < sum(agrees(text, world) for text in half) < 130
        assert all(agrees(text, world) or agrees(text, world.with_changed_facts(3)) for text in half)
    assert [len(texts) for texts, _ in read["twenty_questions-small-3-doubts-3"]] == [400, 600]
