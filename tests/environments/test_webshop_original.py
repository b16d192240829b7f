"""Adapters to the original: what a stand-in for its site and its gym environment shows and pays arrives unchanged."""

import copy
import random
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest
from original_webshop import AgentGymServer, OriginalGym, OriginalSite

from boost_trl.environments.base import Environment
from boost_trl.environments.rollout import rollout
from boost_trl.environments.webshop import WebShop, WebShopAgentGym, WebShopGym, WebShopHTTP, generate_catalogue


@pytest.fixture(scope="module")
def catalogue():
    catalogue = generate_catalogue(0, 370, 5)
    odd = ["a & b <c>", '24"x36"', "it's", "50% off #2?", "é + blue", "red | blue"]
    for number, product in enumerate(catalogue.products):
        if number % 2:
            product["options"] = {"type": odd[: 2 + number % 5], **product["options"]}
            product["Title"] += ' & <More> "quoted"'
        if number % 3 == 0:
            product["BulletPoints"] = ["", " spaced ", "two\nlines & <b>bold</b>"]
        if number % 5 == 0:
            product["Description"] = ""
    return catalogue


@pytest.fixture(scope="module")
def site(catalogue):
    with OriginalSite(catalogue) as site:
        yield site


def make_shop(kind, catalogue, site, **options):
    if kind == "gym":
        return WebShopGym(OriginalGym(catalogue), **options)
    return WebShopHTTP(site.url, catalogue=catalogue, **options)


@pytest.mark.parametrize("kind", ["http", "gym"])
@pytest.mark.parametrize("observation", ["text", "text_rich", "compact"])
def test_plays_as_the_embedded_shop(kind, observation, catalogue, site):
    ours = WebShop(catalogue, observation=observation, max_steps=14)
    theirs = make_shop(kind, catalogue, site, observation=observation, max_steps=14)
    assert isinstance(theirs, Environment)
    pages, endings = 0, set()
    for episode in range(12):
        rng = random.Random(episode)
        number = rng.randrange(len(catalogue.goals))
        observed, info = ours.reset(task=ours.tasks()[number])
        answered, answered_info = theirs.reset(task=f"fixed_{number}")
        assert answered_info["category"] == info["category"]
        over = False
        while not over:
            pages += 1
            assert answered == observed
            assert theirs.admissible_actions() == ours.admissible_actions()
            action = rng.choice(ours.admissible_actions())
            action = action.replace("<words>", " ".join(rng.sample(ours.goal["instruction_text"].split(), 3)))
            if rng.random() < 0.1:
                action = rng.choice(["click[nothing]", "think[hm]", "search[]"])
            observed, *outcome, info = ours.step(action)
            answered, *answered_outcome, answered_info = theirs.step(action)
            assert answered_outcome == outcome
            keys = ("valid", "page", "step", "score", "success", "reward_parts")
            assert {key: answered_info.get(key) for key in keys} == {key: info.get(key) for key in keys}
            over = any(outcome[1:])
        assert answered == observed
        endings.add(info["page"] == "done")
    assert endings == {True, False}
    assert pages > 60


def test_the_site_sees_a_browser(catalogue, site):
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
    assert site.goals[session] == catalogue.goals[1]
    shop.reset(task="fixed_1")
    assert site.requests[-1][1].strip("/") != session


def test_leaked_score(catalogue, site):
    shop = WebShopHTTP(site.url, catalogue=catalogue, leak_reward=True, observation="text")
    shop.reset(seed=0)
    asin = re.search(r"B0\w{8}", shop.step(f"search[{shop.task.prompt}]")[0]).group()
    shop.step(f"click[{asin}]")
    last, *_, info = shop.step("click[buy now]")
    assert f"Your score (min 0.0, max 1.0) [SEP] {info['score']}" in last


@pytest.mark.parametrize(("kind", "num_envs"), [("http", 3), ("gym", 1), ("gym", 3)])
def test_rollout(kind, num_envs, catalogue, site):
    shop = make_shop(kind, catalogue, site)

    def policy(conversations):
        moves = ["search[easy clean soap]", None, "click[buy now]"]
        replies = []
        for messages in conversations:
            turn = sum(message["role"] == "assistant" for message in messages)
            listed = re.search(r"\[button\] (B0\w{8})", messages[-1]["content"])
            replies.append(moves[turn] or f"click[{listed[1]}]")
        return replies

    rows = rollout(policy, shop, shop.tasks()[:6], num_envs=num_envs, progress=False)
    assert rows["error"] == [None] * 6
    assert all(rows["terminated"])
    assert all(0 <= score <= 1 for score in rows["score"])


def test_games_of_the_gym_share_its_server_and_nothing_else(catalogue):
    one = WebShopGym(OriginalGym(catalogue))
    one.reset(task="fixed_0")
    other = copy.deepcopy(one)
    assert other.env.server is one.env.server
    with pytest.raises(RuntimeError, match="call reset"):
        other.step("search[hat]")
    other.reset(task="fixed_0")
    first = one.step("search[easy clean soap]")[0]
    product = one.step(f"click[{re.search(r'B0[A-Z0-9]{8}', first).group()}]")[0]
    other.step("search[soap]")
    assert one.page.kind == "item" and one.visited and not other.visited
    back = one.step("click[features]") and one.step("click[< prev]")[0]
    assert back == product


@pytest.mark.parametrize("kind", ["http", "gym"])
def test_tasks(kind, catalogue, site):
    shop = make_shop(kind, catalogue, site)
    assert len(shop.tasks()) == len(catalogue.goals)
    category = shop.tasks()[0].category
    assert {task.category for task in shop.tasks([category])} == {category}
    assert shop.reset(seed=3) == shop.reset(seed=3)
    with pytest.raises(ValueError, match="no task is called 'fixed_9999'"):
        shop.reset(task="fixed_9999")
    with pytest.raises(ValueError, match="no task has category 'Toys'"):
        shop.tasks(["Toys"])
    for task in (5, {"id": "fixed_0", "category": category}):
        with pytest.raises(ValueError, match="task must be a Task or its id"):
            shop.reset(task=task)


@pytest.mark.parametrize("shop", [WebShopHTTP, WebShopAgentGym])
def test_no_site(shop):
    shop = shop("http://127.0.0.1:9", timeout=5)
    with pytest.raises(ConnectionError, match="no WebShop server answers at http://127.0.0.1:9/"):
        shop.reset(seed=0)
    with pytest.raises(RuntimeError, match="call reset"):
        shop.step("search[hat]")


@contextmanager
def answering(body, length=None):
    """A server that gives every request the same answer; with a `length`, one that says it is longer than it is."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("shop", [WebShopHTTP, WebShopAgentGym])
def test_a_cut_answer(shop):
    with answering(b"<html>", length=100) as url, pytest.raises(ConnectionError, match="is cut or no HTTP"):
        shop(url).reset(seed=0)


@pytest.mark.parametrize("answer", ["<html>", "[]", "{}", '"x"', "null", '[5, "x"]', '{"error": "no such game"}'])
def test_another_server_than_agent_gyms(answer):
    with answering(answer.encode()) as url:
        shop = WebShopAgentGym(url)
        with pytest.raises(
            ValueError, match="create does not speak AgentGym's protocol: it answers " + re.escape(repr(answer))
        ):
            shop.reset(seed=0)
        shop._number = 1
        with pytest.raises(ValueError, match="reset does not speak AgentGym's protocol"):
            shop.reset(seed=0)


@pytest.mark.parametrize("answer", ['{"state": 5, "reward": 0, "done": false}', '{"state": ""}', '["", 0, false]'])
def test_agent_gyms_server_answers_a_step_with_something_else(agent_gym, answer):
    shop = WebShopAgentGym(agent_gym.url)
    shop.reset(task="fixed_0")
    with answering(answer.encode()) as url:
        shop.base_url = url + "/"
        with pytest.raises(ValueError, match="step does not speak AgentGym's protocol"):
            shop.step("search[hat]")


def test_the_site_fails(site):
    shop = WebShopHTTP(site.url, num_goals=1000)
    with pytest.raises(ConnectionError, match="answered 500"):
        shop.reset(task="fixed_999")


def test_something_else_answers():
    with answering(b"<html><body><p>It works!</p></body></html>") as url:
        with pytest.raises(ValueError, match="no page of WebShop.*It works!"):
            WebShopHTTP(url).reset(seed=0)


@pytest.mark.parametrize("shop", [WebShopHTTP, WebShopAgentGym])
@pytest.mark.parametrize(("url", "goals"), [("localhost:3000", 5), ("http://localhost", 0)])
def test_bad_arguments(shop, url, goals):
    with pytest.raises(ValueError, match="base_url|num_goals"):
        shop(url, num_goals=goals)


@pytest.fixture
def agent_gym(catalogue):
    with AgentGymServer(catalogue) as server:
        yield server


def test_agent_gym_plays_as_the_embedded_shop(agent_gym, catalogue):
    ours = WebShop(catalogue, observation="text", max_steps=10)
    theirs = WebShopAgentGym(agent_gym.url, num_goals=len(catalogue.goals), max_steps=10)
    assert isinstance(theirs, Environment)
    endings = set()
    for number in range(10):
        rng = random.Random(number)
        observed, _ = ours.reset(task=ours.tasks()[number])
        answered, _ = theirs.reset(task=f"fixed_{number}")
        over = False
        while not over:
            assert answered == observed
            assert theirs.admissible_actions() == ours.admissible_actions()
            action = rng.choice(ours.admissible_actions()).replace("<words>", "easy clean soap")
            observed, *outcome, info = ours.step(action)
            answered, *answered_outcome, answered_info = theirs.step(action)
            assert answered_outcome == outcome
            assert (answered_info.get("score"), answered_info["valid"]) == (info.get("score"), True)
            over = any(outcome[1:])
        assert answered == observed
        endings.add(outcome[1])
    assert endings == {True, False}


def test_agent_gym_games_are_apart(agent_gym):
    one = WebShopAgentGym(agent_gym.url, num_goals=3)
    one.reset(seed=0)
    other = copy.deepcopy(one)
    other.reset(seed=1)
    other.step("search[easy clean]")
    assert one.admissible_actions() == ["search[<words>]"]
    assert len(agent_gym.games) == 2
    one.close()
    other.close()
    assert not agent_gym.games


def test_another_gym_environment_is_refused():
    with pytest.raises(ValueError, match="object is not the original's WebAgentTextEnv"):
        WebShopGym(object())


def test_wrappers_are_taken_off(catalogue):
    env = OriginalGym(catalogue)
    assert WebShopGym(SimpleNamespace(unwrapped=env, server=env.server)).env is env
