"""Many games at once beside one after the other, both through `generate`: live games of Twenty Questions, and its self-play."""

from functools import partial

from side_by_side import Row, Seconds, in_turns

from boost_trl.environments.base import make_env
from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer
from boost_trl.environments.policies import GenerationPolicy
from boost_trl.environments.rollout import rollout
from boost_trl.environments.synthetic import generate_synthetic
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories


NEW_TOKENS = 12


def measure(rounds: int = 2, together: int = 64, alone: int = 16, dialogues: int = 128) -> list[Row]:
    env = make_env("twenty_questions", world="small")
    rows = offline_trajectories(env, dialogues, seed=0)
    words = {word for messages in rows["messages"] for message in messages for word in message["content"].split()}
    tokenizer = word_tokenizer(sorted(words))
    # The size of the model that plays in `make demo`.
    model = tiny_gpt2(tokenizer, max_length=512)

    def play(every: int) -> Seconds:
        policy = GenerationPolicy(model, tokenizer, max_new_tokens=NEW_TOKENS, seed=0)
        tasks = env.tasks()[:together:every]
        start = Seconds.now()
        rollout(policy, env, tasks, num_envs=together if every == 1 else 1, progress=False)
        return (Seconds.now() - start) / len(tasks)

    def converse(every: int) -> Seconds:
        chosen = rows.select(range(0, dialogues, every))
        start = Seconds.now()
        options = {"batch_size": 64 if every == 1 else 1, "max_new_tokens": NEW_TOKENS, "progress": False}
        generate_synthetic(model, tokenizer, chosen, env, **options)
        return (Seconds.now() - start) / len(chosen)

    details = {"parameters": model.num_parameters(), "new_tokens": NEW_TOKENS, "rounds": rounds}
    # Alone only some of them, from all over: games are not equally long.
    games = in_turns({"together": partial(play, 1), "alone": partial(play, together // alone)}, rounds, "games", False)
    ways = {"together": partial(converse, 1), "alone": partial(converse, dialogues // alone)}
    dialogue = in_turns(ways, rounds, "self-play", False)
    named = "one at a time"
    return [
        games.row(f"{together} games in lockstep, per game", "together", "alone", 0.08, named=named, **details),
        dialogue.row(
            "self-played dialogues, 64 at a time, per dialogue", "together", "alone", 0.08, named=named, **details
        ),
    ]
