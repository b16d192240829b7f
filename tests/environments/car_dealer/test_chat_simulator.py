"""The buyer that a chat model plays."""

import pytest

from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.prompts import ENVIRONMENT_PROMPT


class EchoChat:
    """A chat model that reads its target price from Figure 5's goal and follows its rules."""

    def __init__(self):
        self.seen = []

    def __call__(self, conversations):
        self.seen.append(conversations[0])
        target = int(conversations[0][0]["content"].split("target price $")[1].split(", w")[0].replace(",", ""))
        offer = int(conversations[0][-1]["content"].split("$")[1].replace(",", ""))
        return [f"Deal at ${offer:,}." if offer <= target else f"I can pay ${target:,}."]


def test_chat_buyer_plays_figure_5():
    chat = EchoChat()
    env = CarDealer(buyer=chat)
    task = next(t for t in env.tasks(["BMW"]) if t.data["reservation"] + t.data["sticker"] // 10 > t.data["floor"])
    opening, _ = env.reset(seed=0, task=task)
    sticker, floor = task.data["sticker"], task.data["floor"]
    target = min(task.data["budget"], task.data["reservation"] + sticker // 10)
    assert env.step(f"${sticker:,}")[0] == f"I can pay ${target:,}."
    # A void offer is never heard, so that no model can be talked into it.
    heard = len(chat.seen)
    observation, _, terminated, _, info = env.step(f"${floor - 100:,}")
    assert len(chat.seen) == heard and info["void"] == "below_floor" and not terminated
    *_, terminated, _, info = env.step(f"${target:,}")
    assert terminated and info["success"] and info["price"] == target
    system, first, second, third = chat.seen[-1]
    assert (
        system["role"] == "system" and system["content"].startswith(ENVIRONMENT_PROMPT) and "BMW" in system["content"]
    )
    assert opening.split("Buyer: ")[1] in system["content"]
    assert [m["role"] for m in (first, second, third)] == ["user", "assistant", "user"]


def test_void_offers_cost_a_chat_buyers_patience():
    heard = []
    env = CarDealer(buyer=lambda conversations: heard.append(1) or ["Hm."])
    task = env.tasks()[0]
    env.reset(seed=0, task=task)
    steps = [env.step("$1") for _ in range(task.data["patience"] + 1)]
    assert [step[2] for step in steps] == [False] * task.data["patience"] + [True] and not heard
    assert steps[-1][4]["decision"] == "reject"


def test_chat_buyers_do_not_buy_by_accident():
    said = iter(["Deal? You must be joking!", "I would accept a lower price.", "All right, you have a deal."])
    env = CarDealer(buyer=lambda conversations: [next(said)])
    task = env.tasks()[0]
    env.reset(seed=0, task=task)
    steps = [env.step(f"${task.data['sticker']:,}") for _ in range(3)]
    assert [step[4].get("success") for step in steps] == [None, None, True]


def test_chat_buyer_may_leave_and_must_answer_with_text():
    env = CarDealer(buyer=lambda conversations: ["I am walking away."])
    env.reset(seed=0)
    *_, terminated, _, info = env.step("Good day.")
    assert terminated and info["decision"] == "reject" and not info["success"]
    env = CarDealer(buyer=lambda conversations: [None])
    env.reset(seed=0)
    with pytest.raises(ValueError, match="buyer"):
        env.step("Good day.")
