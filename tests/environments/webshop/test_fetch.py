"""Servers that fail."""

import pytest

from boost_trl.environments.webshop import WebShopAgentGym, WebShopHTTP

from .servers import answering


@pytest.mark.parametrize("shop", [WebShopHTTP, WebShopAgentGym])
def test_no_site(shop):
    shop = shop("http://127.0.0.1:9", timeout=5)
    with pytest.raises(ConnectionError, match="no WebShop server answers at http://127.0.0.1:9/"):
        shop.reset(seed=0)
    with pytest.raises(RuntimeError, match="call reset"):
        shop.step("search[hat]")


@pytest.mark.parametrize("shop", [WebShopHTTP, WebShopAgentGym])
def test_a_cut_answer(shop):
    with answering(b"<html>", length=100) as url, pytest.raises(ConnectionError, match="is cut or no HTTP"):
        shop(url).reset(seed=0)


def test_the_site_fails(site):
    shop = WebShopHTTP(site.url, num_goals=1000)
    with pytest.raises(ConnectionError, match="answered 500"):
        shop.reset(task="fixed_999")


def test_something_else_answers():
    with answering(b"<html><body><p>It works!</p></body></html>") as url:
        with pytest.raises(ValueError, match="no page of WebShop.*It works!"):
            WebShopHTTP(url).reset(seed=0)
