"""The original's site over HTTP."""

import re

from boost_trl.environments.webshop import WebShopHTTP


def test_the_site_sees_a_browser(odd_catalogue, site):
    shop = WebShopHTTP(site.url + "/", num_goals=3)
    assert [(task.id, task.category) for task in shop.tasks()] == [(f"fixed_{n}", "webshop") for n in range(3)]
    site.requests.clear()
    shop.reset(task="fixed_1")
    shop.step("search[red/blue hat]")
    asin = re.search(r"B0\w{8}", shop.step("click[next >]")[0]).group()
    shop.step(f"click[{asin}]")
    assert shop.visited == {asin}
    methods, paths = zip(*site.requests)
    session = paths[0].strip("/")
    assert methods == ("GET", "POST", "GET", "POST", "GET")
    assert session.startswith("fixed") and session.endswith("_1")
    assert [path.split("/")[1] for path in paths[1:]] == [session, "search_results", "search_results", "item_page"]
    assert site.goals[session] == odd_catalogue.goals[1]
    shop.reset(task="fixed_1")
    assert site.requests[-1][1].strip("/") != session


def test_leaked_score(odd_catalogue, site):
    shop = WebShopHTTP(site.url, catalogue=odd_catalogue, leak_reward=True, observation="text")
    shop.reset(seed=0)
    asin = re.search(r"B0\w{8}", shop.step(f"search[{shop.task.prompt}]")[0]).group()
    shop.step(f"click[{asin}]")
    last, *_, info = shop.step("click[buy now]")
    assert f"Your score (min 0.0, max 1.0) [SEP] {info['score']}" in last
