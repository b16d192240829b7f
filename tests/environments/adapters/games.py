"""Games of the three worlds, and what a step of GRPO changes."""

import json

import torch

from boost_trl.environments.base import make_env


def moved(trainer):
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    return any(not torch.equal(before[name], value) for name, value in trainer.model.named_parameters())


def logged(trainer, key):
    return next(entry[key] for entry in trainer.state.log_history if key in entry)


def call(tool, argument, value):
    return "<tool_call>\n" + json.dumps({"name": tool, "arguments": {argument: value}}) + "\n</tool_call>"


SALE = ["has camera", "price 88", "price 86", "price 84"]


# Environment, task, tools' class, tool calls that end its game with a reward, and the same in its own words.
GAMES = {
    "twenty_questions": (
        lambda: make_env("twenty_questions"),
        "metals/one",
        "TwentyQuestionsTools",
        [call("ask", "question", "very heavy?"), call("guess", "item", "number one")],
        ["very heavy?", "number one?"],
    ),
    "car_dealer": (
        lambda: make_env("car_dealer", world="small"),
        "volkswagen-0002",
        "CarDealerTools",
        [call("say", "utterance", words) for words in SALE],
        SALE,
    ),
    "webshop": (
        lambda: make_env("webshop", catalogue="small"),
        "webshop-00000",
        "WebShopTools",
        [call("search", "keywords", "mouse"), call("click", "name", "1"), call("click", "name", "Buy Now")],
        ["search mouse", "click 1", "click buy now"],
    ),
}


def play(env, task, seed, actions):
    """Observations and sum of the last info's numbers that count, played without any adapter."""
    observations = [env.reset(seed=seed, task=task)[0]]
    for action in actions:
        observation, _, terminated, truncated, info = env.step(action)
        observations.append(observation)
        if terminated or truncated:
            return observations, info.get("discounted_score", info["score"])
    raise AssertionError(f"the game is not over: {observations}")
