"""What a synthetic WebShop episode is worth by its own words."""

import pytest

from boost_trl.environments.base import Task
from boost_trl.environments.synthetic import OffersSyntheticRules, SyntheticRules
from boost_trl.environments.webshop import Catalogue, WebShop, generate_small_catalogue, offline_trajectories
from boost_trl.environments.webshop.synthetic_rules import read_purchase


GOAL = {
    "asin": "B000000001",
    "category": "fashion",
    "query": "hats",
    "name": "Soft Wool Hat",
    "product_category": "Clothing › Men › Hats",
    "instruction_text": "i need a soft hat in red, and price lower than 30.00 dollars",
    "attributes": ["soft"],
    "price_upper": 30.0,
    "goal_options": ["red"],
    "weight": 1.0,
}


PRODUCT = {
    "asin": "B000000001",
    "name": "Soft Wool Hat",
    "category": "fashion",
    "query": "hats",
    "product_category": "Clothing › Men › Hats",
    "Title": "Soft Wool Hat",
    "Description": "",
    "BulletPoints": [],
    "Rating": "N.A.",
    "pricing": [20.0],
    "Price": "$20.0",
    "options": {"color": ["red", "blue"]},
    "Attributes": ["soft"],
}


FIRST = f"WebShop [SEP] Instruction: [SEP] {GOAL['instruction_text']} [SEP] Search"


# As the paper's simulator is told to write it.
LISTING = (
    "[B00000000X] \n Cosy Felt Hat \n $25.00\n[B000000001] \n Soft Wool Hat \n $20.0\n[B00000000Z]\n Soft Sock\n $3"
)


ITEM = "Soft Wool Hat\nPrice: $20.0\ncolor\n  [button] red [button_]\n  [button] blue [button_]\n[Buy Now]"


def episode(*texts):
    return [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate((FIRST, *texts))]


@pytest.fixture(scope="module")
def shop():
    return WebShop(Catalogue([PRODUCT], {"B000000001": 20.0}, [GOAL]))


def judge(shop, *texts, reward="rescore"):
    return shop.synthetic_rules(reward).rewards_from_text(episode(*texts), shop.tasks()[0])


def test_protocol(shop):
    assert isinstance(shop, OffersSyntheticRules)
    assert isinstance(shop.synthetic_rules(), SyntheticRules)
    assert shop.synthetic_rules().max_turns == shop.max_steps


def test_a_full_purchase(shop):
    outcome = judge(
        shop,
        "search[soft hat]",
        LISTING,
        "click[B000000001]",
        ITEM,
        "click[red]",
        "You have clicked red.",
        "click[Buy Now]",
    )
    assert outcome.rewards == [0.0, 0.0, 0.0, pytest.approx(0.99**3)]
    assert (outcome.score, outcome.success, outcome.terminated) == (1.0, True, True)


@pytest.mark.parametrize(
    ("actions", "score"),
    [
        # Type 1: one noun of three in common. No "soft" anywhere but in the instruction; price and colour are met.
        ((LISTING, "click[b00000000x]", "Cosy Felt Hat in Red\n" + FIRST, "click[red]", ""), 2 / 3),
        # Type 1 again, "soft" in the title, no such colour on the page.
        ((LISTING, "click[b00000000z]", "Soft Sock", "click[red]", ""), 2 / 3),
        # The second colour replaces the first.
        ((LISTING, "click[b000000001]", ITEM, "click[red]", "", "click[blue]", ""), 2 / 3),
        # Another product was looked at before; its options do not count.
        (
            (
                LISTING,
                "click[b00000000x]",
                "red hat",
                "click[red]",
                "",
                "click[< prev]",
                LISTING,
                "click[b000000001]",
                ITEM,
            ),
            2 / 3,
        ),
        # Reading a sub page changes nothing.
        ((LISTING, "click[b000000001]", ITEM, "click[red]", "", "click[features]", "x", "click[< prev]", ITEM), 1.0),
        # A product that no page listed, none at all, and a second search.
        ((LISTING, "click[b0deadbeef]", ITEM, "click[red]", ""), 0.0),
        ((LISTING, "click[b000000001]", ITEM, "click[b0deadbeef]", ITEM), 0.0),
        ((LISTING, "think[nice]", ""), 0.0),
        ((LISTING, "click[b000000001]", ITEM, "click[back to search]", FIRST), 0.0),
    ],
)
def test_rescored(shop, actions, score):
    outcome = judge(shop, "search[soft hat]", *actions, "click[buy now]")
    assert outcome.score == pytest.approx(score)
    assert outcome.terminated
    assert sum(outcome.rewards) == outcome.rewards[-1] == pytest.approx(0.99 ** (len(outcome.rewards) - 1) * score)


def test_price_is_read_off_the_listing(shop):
    dear = LISTING.replace("$20.0", "$31.00 to $40.00")
    outcome = judge(shop, "search[hat]", dear, "click[b000000001]", ITEM, "click[red]", "", "click[buy now]")
    assert outcome.score == pytest.approx(2 / 3)


def test_nothing_bought(shop):
    outcome = judge(shop, "search[hat]", LISTING, "click[b000000001]", ITEM)
    assert outcome == ([0.0, 0.0], False, 0.0, False)


@pytest.mark.parametrize(
    ("last", "score"),
    [
        ("Thank you! Your score (min 0.0, max 1.0): 0.75", 0.75),
        ("Thank you for shopping with us! Reward: 1", 1.0),
        ("Your score is 7", 1.0),
        ("Thank you for shopping with us!", 0.0),
        ("Your score: -1", 0.0),
        ("Your score: −0.5", 0.0),
        ("Reward - 0.5", 0.5),
        ("Your score (min 0.0, max 1.0) [SEP] .25 [SEP] Reward Details [SEP] None", 0.25),
        ("Your score: 0.75. Come again!", 0.75),
        ("score 5e-1", 0.5),
        ("Your score: 7/10", 0.0),
        ("Your score: 50%", 0.0),
        ("Your score: 0,75", 0.0),
        ("Your score: 0.1.2", 0.0),
        ("Your score: perfect", 0.0),
    ],
)
def test_claimed(shop, last, score):
    outcome = judge(shop, "search[hat]", LISTING, "click[buy now]", last, reward="claimed")
    assert (outcome.score, outcome.terminated) == (score, True)


def test_the_shop_says_which_reward(shop):
    bought = episode("search[hat]", LISTING, "click[buy now]", "Your score: 0.5")
    claims = WebShop(shop.catalogue, synthetic_reward="claimed")
    for rules, score in ((claims.synthetic_rules(), 0.5), (claims.synthetic_rules("zero"), 0.0)):
        assert rules.rewards_from_text(bought, shop.tasks()[0]).score == score


def test_zero(shop):
    outcome = judge(
        shop, "search[hat]", LISTING, "click[b000000001]", ITEM, "click[red]", "", "click[buy now]", reward="zero"
    )
    assert outcome == ([0.0] * 4, True, 0.0, False)


def test_when_it_is_over(shop):
    rules, claimed = shop.synthetic_rules(), shop.synthetic_rules("claimed")
    bought = episode("search[x]", "page", "click[Buy Now]")
    assert rules.is_terminal(bought)
    assert not claimed.is_terminal(bought)
    assert claimed.is_terminal(episode("search[x]", "page", "click[Buy Now]", "Your score: 1"))
    assert not rules.is_terminal(episode("search[buy now]"))
    assert not rules.is_terminal(episode("search[x]", "click[buy now]"))


def test_prompts(shop):
    rules, task = shop.synthetic_rules(), shop.tasks()[0]
    assert "You only get ONE search" in rules.agent_prompt(task)
    prompt = rules.environment_prompt(task)
    assert "[ASIN] \\n Product Name \\n $Price" in prompt
    assert "[B000000001] Soft Wool Hat, $20.0" in prompt
    assert "color: red, blue" in prompt


def test_bad_arguments(shop):
    for bad in ("simulate", ""):
        with pytest.raises(ValueError, match=f"'{bad}' is not one of rescore, claimed, zero"):
            shop.synthetic_rules(bad)
        with pytest.raises(ValueError, match=f"synthetic_reward '{bad}' is not one of rescore, claimed, zero"):
            WebShop(shop.catalogue, synthetic_reward=bad)
    bought = episode("search[hat]", LISTING, "click[b000000001]", ITEM, "click[buy now]")
    for task in (None, Task("webshop-77777", "x")):
        with pytest.raises(ValueError, match="WebShop has no task"):
            shop.synthetic_rules().rewards_from_text(bought, task)


def test_agrees_with_the_shop_where_pages_show_everything():
    small = WebShop(generate_small_catalogue(), observation="compact", results_per_page=3, max_steps=8)
    rules = small.synthetic_rules()
    for row in offline_trajectories(small, 300, seed=3):
        outcome = rules.rewards_from_text(row["messages"], Task(**row["task"]))
        assert outcome.rewards == pytest.approx(row["rewards"])
        assert (outcome.score, outcome.success, outcome.terminated) == (
            pytest.approx(row["score"]),
            row["success"],
            row["terminated"],
        )


@pytest.mark.parametrize("observation", ["text", "text_rich"])
def test_purchases_are_read_off_the_shops_own_pages(observation, shop):
    other = WebShop(shop.catalogue, observation=observation)
    messages = [{"role": "user", "content": other.reset(seed=0)[0]}]
    for action in ("search[hat]", "click[b000000001]", "click[blue]", "click[red]"):
        messages += [
            {"role": "assistant", "content": action},
            {"role": "user", "content": other.step(action)[0]},
        ]
    product, options, price = read_purchase(messages)
    assert (product["Title"], price) == ("Soft Wool Hat", 20.0)
    assert options == ({"color": "red"} if observation == "text_rich" else {"blue": "blue", "red": "red"})
