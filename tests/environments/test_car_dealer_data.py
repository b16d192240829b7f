"""Scripted sellers, offline dialogues, chat buyer and self-play rules of Car Dealer."""

import pytest

from boost_trl.data.trajectories import validate_trajectories
from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.measure import score_table
from boost_trl.environments.car_dealer.offline_data import offline_trajectories
from boost_trl.environments.car_dealer.prompts import ENVIRONMENT_PROMPT
from boost_trl.environments.car_dealer.scripted_policies import STRATEGIES, ScriptedPolicy
from boost_trl.environments.rollout import rollout
from boost_trl.environments.synthetic import SyntheticRules


@pytest.fixture(scope="module")
def dialogues():
    return {world: offline_trajectories(CarDealer(world=world), n=300, seed=1) for world in ("full", "small")}


@pytest.mark.parametrize("world", ["full", "small"])
def test_rows_are_trajectories(dialogues, world):
    rows = dialogues[world]
    validate_trajectories(rows)
    for row in rows:
        assert row["messages"][-1]["role"] == "assistant"
        if row["success"]:
            assert sum(row["rewards"]) == 1 - len(row["rewards"]) and row["score"] == 50 - 2 * len(row["rewards"])
            assert row["task"]["data"]["floor"] <= row["price_ratio"] * row["task"]["data"]["sticker"] + 1e-6
        else:
            assert sum(row["rewards"]) == -25 and row["score"] == 0 == row["price_ratio"]


def test_rows_depend_on_seed_and_index_alone(dialogues):
    env = CarDealer(world="small")
    assert offline_trajectories(env, n=20, seed=1).to_list() == dialogues["small"].to_list()[:20]
    assert offline_trajectories(env, n=20, seed=2).to_list() != dialogues["small"].to_list()[:20]


def test_mix_and_categories():
    env = CarDealer(world="small")
    rows = offline_trajectories(env, n=30, mix={"stubborn": 1}, categories=["Tesla", "BMW"])
    assert set(rows["policy"]) == {"stubborn"} and set(rows["category"]) == {"Tesla", "BMW"}
    for options, match in (
        ({"mix": {"saint": 1}}, "saint"),
        ({"mix": {"stubborn": 0}}, "shares"),
        ({"mix": {}}, "shares"),
        ({"n": 0}, "`n`"),
        ({"categories": ["Fiat"]}, "Fiat"),
        ({"slips": 3}, "slips"),
    ):
        with pytest.raises(ValueError, match=match):
            offline_trajectories(env, **{"n": 5, **options})
    with pytest.raises(ValueError, match="saint"):
        ScriptedPolicy(env, "saint")


@pytest.mark.parametrize("world", ["full", "small"])
def test_the_best_seller_of_one_segment_is_wrong_in_another(world):
    table = score_table(CarDealer(world=world, buyers_per_brand=12))
    best = {"economy": "quick_discounter", "mainstream": "anchor_high_slow", "premium": "feature_matcher"}
    best |= {"luxury": "stubborn"}
    one_trick = [name for name in STRATEGIES if name != "expert"]
    for segment, winner in best.items():
        assert max(one_trick, key=lambda name: table[name][segment][0]) == winner
        assert table[winner][segment][0] > 34
        assert min(table[winner][other][0] for other in best) < 5
        assert table["expert"][segment][0] > 38
    # Headroom: the naive sellers leave a lot to the one who reads the brand.
    assert table["expert"]["all"][0] > 41 > 32 > max(table[name]["all"][0] for name in one_trick)
    assert table["noise"]["all"][0] < 2 and table["rambler"]["all"][0] < 2


def test_scripted_sellers_play_in_rollout():
    env = CarDealer(world="small")
    rows = rollout(ScriptedPolicy(env), env, env.tasks(["Porsche"])[:4], progress=False)
    assert all(row["success"] and row["error"] is None for row in rows)


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


@pytest.mark.parametrize("world", ["full", "small"])
def test_self_play_rules_agree_with_the_game(world):
    """Judged by their words alone, real dialogues (with their last answer) get what the game gave them."""
    env = CarDealer(world=world)
    rules = env.synthetic_rules()
    assert isinstance(rules, SyntheticRules)
    outcomes = []
    for index, task in enumerate(env.tasks()[::16]):
        name = list(STRATEGIES)[index % len(STRATEGIES)]
        seller = ScriptedPolicy(env, name, seed=index)
        messages, rewards, over = [{"role": "user", "content": env.reset(seed=index, task=task)[0]}], [], False
        while not over:
            assert not rules.is_terminal(messages)
            messages.append({"role": "assistant", "content": seller([messages])[0]})
            assert not rules.is_terminal(messages)  # the buyer decides
            observation, reward, over, _, info = env.step(messages[-1]["content"])
            rewards.append(reward)
            messages.append({"role": "user", "content": observation})
        assert rules.is_terminal(messages)
        outcome = rules.rewards_from_text(messages, task)
        assert outcome == (rewards, True, info["score"], info["success"])
        outcomes.append(info["success"])
    assert {True, False} == set(outcomes)


def test_self_play_cannot_sell_below_the_minimum():
    env = CarDealer(world="small", max_utterances=4)
    rules = env.synthetic_rules()
    task = env.tasks(["Lexus"])[0]
    talk = [
        {"role": "user", "content": env.reset(task=task)[0]},
        {"role": "assistant", "content": f"price {task.data['floor'] - 1}"},
        {"role": "user", "content": "deal"},
    ]
    assert rules.rewards_from_text(talk, None) == ([-2.0], True, 0.0, False)
    talk[1]["content"] = f"price {task.data['floor']}"
    assert rules.rewards_from_text(talk, None) == ([0.0], True, 2.0, True)
    cut = rules.rewards_from_text(talk[:2], None)
    assert not cut.terminated and cut.rewards == [-1.0]
    assert "walk away" in rules.environment_prompt(CarDealer().tasks()[0])
