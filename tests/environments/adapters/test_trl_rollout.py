"""One step of GRPO in text."""

import pytest
from toy_game import GuessNumber

from boost_trl.environments.adapters.trl_episode import grpo_rows
from boost_trl.environments.adapters.trl_rollout import as_rollout_func, env_reward

from .games import GAMES, logged, moved, play


@pytest.mark.parametrize("name", GAMES)
def test_one_step_in_text(name, grpo, tokenizer):
    make, task_id, _, _, actions = GAMES[name]
    env = make()
    task = next(task for task in env.tasks() if task.id == task_id)
    observations, score = play(env, task, 3, actions)
    outputs = []
    rollout_func = as_rollout_func(env)

    def script(batch):
        turns = [text.count("<|im_start|>user") - 1 for text in batch]
        return [
            "hello" if "hello" in text or (row and not turn) else actions[turn]
            for row, (text, turn) in enumerate(zip(batch, turns))
        ]

    def spy(prompts, trainer):
        outputs.append((prompts, rollout_func(prompts, trainer)))
        return outputs[-1][1]

    trainer = grpo(grpo_rows(env, [task], seed=3), script, [env_reward], rollout_func=spy)
    assert moved(trainer)
    prompts, output = outputs[0]
    assert len(prompts) == 2 and prompts[0] == prompts[1]  # repeated already: one game per entry
    assert output["env_reward"] == [score, 0.0]
    assert logged(trainer, "rewards/env_reward/mean") == pytest.approx(score / 2)

    rules = f"<|im_start|>system\n{env.system_prompt}<|im_end|>\n" if env.system_prompt else ""
    opening = f"{rules}<|im_start|>user\n{observations[0]}<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(output["prompt_ids"][0]) == opening
    ids, mask = output["completion_ids"][0], output["env_mask"][0]
    between = [
        f"\n<|im_start|>user\n{observation}<|im_end|>\n<|im_start|>assistant\n" for observation in observations[1:-1]
    ]
    written = [action + "<|im_end|>" for action in actions[: len(between) + 1]]
    assert tokenizer.decode(ids) == "".join(a + b for a, b in zip(written, [*between, ""]))
    assert tokenizer.decode([token for token, own in zip(ids, mask) if own]) == "".join(written)


def test_rollouts_with_sampling_stay_within_their_limits(grpo, tokenizer):
    """The random model never ends a turn by itself: every one is cut, and the template's end of turn is not its own."""
    outputs = []
    rollout_func = as_rollout_func(GuessNumber(), max_turn_tokens=5)

    def spy(prompts, trainer):
        outputs.append(rollout_func(prompts, trainer))
        return outputs[-1]

    rows = grpo_rows(GuessNumber())
    trainer = grpo(rows, None, [env_reward], rows_per_step=2, max_completion_length=150, rollout_func=spy)
    trainer.train()
    end = "<|im_end|>\n<|im_start|>user\n"
    for ids, mask in zip(outputs[0]["completion_ids"], outputs[0]["env_mask"]):
        assert 0 < len(ids) <= 150 and len(mask) == len(ids)
        runs = "".join(map(str, mask)).split("0")
        assert max(map(len, runs)) <= 5 and mask[0] == mask[-1] == 1
        environment = tokenizer.decode([token for token, own in zip(ids, mask) if not own])
        assert environment.count("<|im_start|>user\n") == environment.count("<|im_start|>assistant\n") >= 1
        assert environment.startswith((end, end.removeprefix("<|im_end|>")))


def test_a_game_that_does_not_fit_is_not_paid(grpo):
    outputs = []
    rollout_func = as_rollout_func(GuessNumber(), unfinished_reward=-1.0)

    def spy(prompts, trainer):
        outputs.append(rollout_func(prompts, trainer))
        return outputs[-1]

    trainer = grpo(
        grpo_rows(GuessNumber(), GuessNumber().tasks()[7:8]),
        lambda batch: ["3"] * len(batch),
        [env_reward],
        max_completion_length=10,
        rollout_func=spy,
    )
    trainer.train()
    assert outputs[0]["env_reward"] == [-1.0, -1.0]
    assert [len(ids) for ids in outputs[0]["completion_ids"]] == [2, 2]  # the guess and its end, no observation


def test_rollout_func_says_what_it_cannot_do(grpo):
    rows = grpo_rows(GuessNumber())
    foreign = rows.map(lambda row: {"prompt": [{"role": "user", "content": "Hi."}]})
    trainer = grpo(foreign.select_columns(["prompt"]), None, [env_reward], rollout_func=as_rollout_func(GuessNumber))
    with pytest.raises(ValueError, match="make the dataset with `grpo_rows"):
        trainer.train()
    trainer = grpo(rows, None, [env_reward], rollout_func=as_rollout_func(GuessNumber))
    trainer.use_vllm = True
    with pytest.raises(ValueError, match="excludes use_vllm"):
        trainer.rollout_func([], trainer)
