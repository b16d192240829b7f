"""Action grammar, rewards and limits of every shop."""

import pytest

from boost_trl.environments.webshop import WebShop

from .hats import make_catalogue, play


def test_reward_is_discounted_by_steps_to_the_purchase(shop):
    *_, terminated, truncated, info = play(shop, "search[hat]", "click[b000000001]", "click[blue]", "click[buy now]")
    assert (terminated, truncated) == (True, False)
    assert info["score"] == pytest.approx(2 / 3)
    assert info["discounted_score"] == pytest.approx(0.99**3 * 2 / 3)
    assert info["reward_parts"] == {
        "reward": pytest.approx(2 / 3),
        "r_type": 1.0,
        "r_att": 1.0,
        "r_option": 0.0,
        "r_price": True,
    }
    assert (info["success"], info["asin"], info["options"]) == (False, "B000000001", {"color": "blue"})
    assert (info["task_id"], info["category"], info["step"]) == ("webshop-00000", "Clothing – Men", 4)


def test_no_discount():
    shop = WebShop(make_catalogue(), discount=1.0)
    shop.reset(seed=0)
    _, reward, *_, info = play(shop, "search[hat]", "click[b000000001]", "click[red]", "click[buy now]")
    assert (reward, info["score"], info["success"]) == (1.0, 1.0, True)


def test_the_last_page_does_not_tell_the_score(shop):
    for mode in ("text", "text_rich", "compact"):
        shop = WebShop(make_catalogue(), observation=mode)
        shop.reset(seed=0)
        product = "1" if mode == "compact" else "b000000001"
        last = play(shop, "search[warm hat]", f"click[{product}]", "click[buy now]")[0]
        assert last.strip() == "Thank you for shopping with us!"


@pytest.mark.parametrize(
    "action",
    [
        *["", "   ", "hello", "search[]", "click[]", "click", "buy now", "think[hm]", "Click[b000000001]"],
        *["click[b999999999]", "click[search]", "click[< prev]", "\n", "search(hat)", "[x]", None, 3],
    ],
)
def test_unknown_actions_change_nothing(shop, action):
    before = shop.step("search[hat]")[0]
    observation, reward, terminated, truncated, info = shop.step(action)
    assert (observation, reward, terminated, truncated) == (before, 0.0, False, False)
    assert info["valid"] is False
    assert info["error"]


def test_letter_case_of_arguments_does_not_matter(shop):
    assert shop.step("search[WARM HAT]")[4]["valid"]
    assert shop.step("click[Next >]")[4]["valid"]


def test_step_after_the_end_raises(shop):
    with pytest.raises(RuntimeError, match="call reset"):
        WebShop(make_catalogue()).step("search[hat]")
    play(shop, "search[hat]", "click[b000000001]", "click[buy now]")
    with pytest.raises(RuntimeError, match="over"):
        shop.step("search[hat]")


def test_step_limit():
    shop = WebShop(make_catalogue(), max_steps=3)
    shop.reset(seed=0)
    assert play(shop, "search[hat]", "nothing")[2:4] == (False, False)
    _, reward, terminated, truncated, info = shop.step("search[hat]")
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["score"], info["success"]) == (0.0, False)
    shop.reset(seed=0)
    assert play(shop, "search[hat]", "click[b000000001]", "click[buy now]")[2:4] == (True, False)


def test_limit_of_searches():
    shop = WebShop(make_catalogue(), max_searches=1)
    shop.reset(seed=0)
    before = shop.step("search[warm]")[0]
    observation, *_, info = shop.step("search[straw]")
    assert (observation, info["valid"]) == (before, False)
    shop.reset(seed=0)
    assert shop.step("search[straw]")[4]["valid"]


def test_plain_actions_are_for_compact_pages_only(shop):
    assert shop.step("search hat")[4]["valid"] is False
    compact = WebShop(make_catalogue(), observation="compact")
    compact.reset(seed=0)
    assert compact.admissible_actions() == ["search <words>"]
    *_, info = play(compact, "search warm hat", "click 1", "click red", "click buy now")
    assert (info["score"], info["valid"]) == (1.0, True)
    compact.reset(seed=0)
    assert compact.step("think about it")[4]["error"] == "there is no action 'think'; use search[words] or click[name]"
