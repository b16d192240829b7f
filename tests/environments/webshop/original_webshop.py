"""Stands in for the original WebShop: its pages, its addresses, forms and redirects, served by the standard library.

It searches with our index and pays by our own `purchase_reward`, so what plays against it tests the transport (that pages,
actions, options and scores arrive as they were sent), not that search and reward equal the original's.
"""

import json
from ast import literal_eval
from html import escape
from threading import Lock
from types import SimpleNamespace
from urllib.parse import parse_qs, quote, unquote

from boost_trl.environments.webshop import WebShop, purchase_reward

from .servers import LocalServer, QuietHandler


def address(*parts):
    return "/" + "/".join(quote(str(part)) for part in parts)


def form(action, label, kind="btn btn-primary"):
    return f'<form method="post" action="{escape(action)}">\n <button type="submit" class="{kind}">{label}</button>\n</form>\n'


def document(*body):
    head = "<!DOCTYPE html>\n<html>\n <head><title>shop</title>\n<script>let x = '<b>[SEP]</b>';</script></head>\n <body>\n"
    return head + "<div>\n" + "\n".join(body) + "\n</div>\n </body>\n<script>var late = 1;</script>\n</html>"


class OriginalPages:
    """HTML of every page of the original's site for one catalogue."""

    def __init__(self, catalogue):
        self.catalogue = catalogue

    def index(self, session, goal):
        return document(
            "<!-- a comment --><h2>WebShop</h2>",
            f'<div id="instruction-text"><h4>Instruction: <br>{escape(goal["instruction_text"])}</h4></div>',
            f'<form method="post" action="{address(session)}">\n<input id="search_input" type="text" name="search_query" '
            'required/>\n<span><button class="btn btn-success" type="submit"><i class="glyph"></i>Search</button></span>'
            "\n</form>",
        )

    def head(self, session, goal):
        text = f'<div id="instruction-text"><h4>Instruction:<br>{escape(goal["instruction_text"])}</h4></div>\n'
        return text + form(address(session), "Back to Search")

    def results(self, session, goal, keywords, number):
        found = self.catalogue.index.search(" ".join(keywords))
        body = [self.head(session, goal), f"<h3>Page {number} (Total results: {len(found)})</h3>"]
        if number > 1:
            body.append(form(address("search_results", session, keywords, number - 1), "&lt; Prev"))
        body.append(form(address("search_results", session, keywords, number + 1), "Next &gt;"))
        for asin in found[(number - 1) * 10 : number * 10]:
            product = self.catalogue.by_asin[asin]
            link = address("item_page", session, asin, keywords, number, {})
            # Headings are closed by the wrong tags, as in the original.
            body.append(f'<h4 class="asin"><a class="product-link" href="{escape(link)}">{asin}</a></h5>')
            body.append(f"<h4>{escape(product['Title'])}</h5>\n<div><h5>{product['Price']}</h6></div>")
        return document(*body)

    def item(self, session, goal, asin, keywords, number, options):
        product = self.catalogue.by_asin[asin]
        place = (session, asin, keywords, number)
        body = [self.head(session, goal), form(address("search_results", session, keywords, number), "&lt; Prev")]
        for name, values in product["options"].items():
            body.append(f"<h4>{escape(name)}</h4>")
            for at, value in enumerate(values):
                link = escape(address("item_page", *place, options | {name: value}))
                radio = f"radio_{escape(name)}{at}"
                body.append(
                    f'<input type="radio" id="{radio}" name="{escape(name)}" value="{escape(value)}" data-url="{link}">\n'
                    f'<label for="{radio}">{escape(value)}</label>'
                )
        body.append(f"<h2>{escape(product['Title'])}</h2>\n<h4>Price: {product['Price']}</h4>\n<h4>Rating: N.A.</h4>")
        for label in ("Description", "Features", "Reviews"):
            body.append(form(address("item_sub_page", *place, label, options), label))
        body.append(form(address("done", session, asin, options), "Buy Now", "btn btn-lg purchase"))
        return document(*body)

    def sub(self, session, goal, asin, keywords, number, label, options):
        product = self.catalogue.by_asin[asin]
        texts = {
            "Description": f'<p class="product-info">{escape(product["Description"])}</p>',
            "Features": "".join(f"<li><p> {escape(bullet)}</p></li>\n" for bullet in product["BulletPoints"]),
            "Reviews": "\n",
        }
        back = form(address("item_page", session, asin, keywords, number, options), "&lt; Prev")
        return document(self.head(session, goal), back, texts[label])

    def done(self, asin, options, reward, details):
        return document(
            "<h1>Thank you for shopping with us!</h1>\n<h3>Your code: </h3>\n<p><pre>None</pre> (Paste it.)</p>",
            f"<h4>asin<pre>{asin}</pre></p>\n<h4>options<pre>{escape(json.dumps(options))}</pre></h4>",
            f'<h3   id="reward">Your score (min 0.0, max 1.0)<pre>{reward}</pre></h3>',
            f'<h4 hidden>Reward Details <div id="reward_info"><pre>{escape(str(details))}</pre></div></h4>',
        )


class OriginalSite(LocalServer):
    """The Flask site: sessions, redirect after a search, everything else in the address. A context manager."""

    def __init__(self, catalogue):
        self.catalogue, self.pages, self.goals = catalogue, OriginalPages(catalogue), {}
        self.requests = []
        site = self

        class Handler(QuietHandler):
            def do_GET(self):
                site.answer(self, {})

            def do_POST(self):
                length = int(self.headers.get("Content-Length") or 0)
                site.answer(self, parse_qs(self.rfile.read(length).decode()))

        super().__init__(Handler)

    def answer(self, request, fields):
        self.requests.append((request.command, request.path))
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        try:
            location, html = self.route(request.command, parts, fields)
        except (KeyError, ValueError, SyntaxError, IndexError, TypeError):
            request.send_response(500)
            request.end_headers()
            return
        request.send_response(302 if location else 200)
        if location:
            request.send_header("Location", location)
        request.end_headers()
        request.wfile.write(html.encode())

    def route(self, method, parts, fields):
        if len(parts) == 1:
            (session,) = parts
            if session not in self.goals:
                self.goals[session] = self.catalogue.goals[int(session.split("_")[-1])]
            if method == "POST" and "search_query" in fields:
                keywords = fields["search_query"][0].lower().split(" ")
                return address("search_results", session, keywords, 1), ""
            return None, self.pages.index(session, self.goals[session])
        kind, session, *rest = parts
        goal = self.goals[session]
        if kind == "search_results":
            keywords, number = rest
            return None, self.pages.results(session, goal, literal_eval(keywords), int(number))
        if kind == "item_page":
            asin, keywords, number, options = rest
            return None, self.pages.item(session, goal, asin, keywords, int(number), literal_eval(options))
        if kind == "item_sub_page":
            asin, keywords, number, label, options = rest
            return None, self.pages.sub(session, goal, asin, keywords, number, label, literal_eval(options))
        asin, options = rest
        options = literal_eval(options)
        parts = purchase_reward(goal, self.catalogue.by_asin[asin], options, self.catalogue.prices[asin])
        return None, self.pages.done(asin, options, parts["reward"], {**parts, "w_att": 0.5})


class OriginalGym:
    """The text environment's interface: old gym API, `state`, and the server's sessions."""

    def __init__(self, catalogue):
        self.pages = OriginalPages(catalogue)
        # The original's server holds a Java search engine, which can be neither copied nor pickled.
        self.server = SimpleNamespace(goals=catalogue.goals, user_sessions={}, search_engine=Lock())
        self.browser = SimpleNamespace(server=self.server, current_url=None, page_source=None)
        self.catalogue, self.session_prefix = catalogue, None

    @property
    def state(self):
        return {"url": self.browser.current_url, "html": self.browser.page_source}

    def reset(self, session):
        self.session = (self.session_prefix or "") + str(session)
        self.goal = self.server.goals[session]
        self._index()
        return "", None

    def _index(self):
        self.server.user_sessions[self.session] = {"options": {}, "asins": set()}
        self._show(f"/{self.session}", self.pages.index(self.session, self.goal))

    def _show(self, path, html):
        self.browser.current_url, self.browser.page_source = "http://127.0.0.1:3000" + path, html
        self._kind = path.split("/")[1]

    def _results(self, keywords, number):
        self.keywords, self.number = keywords, number
        self.server.user_sessions[self.session]["options"] = {}
        html = self.pages.results(self.session, self.goal, keywords, number)
        self._show(f"/search_results/{self.session}/{'+'.join(keywords)}/{number}", html)

    def step(self, action):
        session = self.server.user_sessions[self.session]
        name = action.partition("[")[2].removesuffix("]").lower()
        reward, done = 0.0, False
        if action.startswith("search["):
            self._results(name.split(" "), 1)
        elif name == "back to search":
            self._index()
        elif name == "next >":
            self._results(self.keywords, self.number + 1)
        elif name == "< prev" and self._kind != "item_sub_page":
            self._results(self.keywords, self.number - (self._kind == "search_results"))
        elif name == "buy now":
            product, price = self.catalogue.by_asin[self.asin], self.catalogue.prices[self.asin]
            parts = purchase_reward(self.goal, product, session["options"], price)
            session["verbose_info"], reward, done = parts, parts["reward"], True
            self._show("/done/", self.pages.done(self.asin, session["options"], reward, None))
        elif name in ("description", "features", "reviews"):
            place = (self.asin, self.keywords, self.number, name.capitalize(), session["options"])
            self._show("/item_sub_page/", self.pages.sub(self.session, self.goal, *place))
        else:
            if name.upper() in self.catalogue.by_asin:
                self.asin = name.upper()
                session["asins"].add(self.asin)
            elif name != "< prev":
                options = self.catalogue.by_asin[self.asin]["options"]
                session["options"][next(key for key, values in options.items() if name in values)] = name
            place = (self.asin, self.keywords, self.number, session["options"])
            self._show("/item_page/", self.pages.item(self.session, self.goal, *place))
        return "", reward, done, None


class AgentGymServer(LocalServer):
    """AgentGym's protocol over [`WebShop`] in simple text with its last page as the original's. A context manager."""

    def __init__(self, catalogue):
        self.catalogue, self.games = catalogue, {}
        server = self

        class Handler(QuietHandler):
            def do_GET(self):
                path, _, number = self.path.partition("?env_idx=")
                assert path == "/available_actions"
                actions = server.games[int(number)].admissible_actions()
                clicks = [action[6:-1] for action in actions if action.startswith("click[")]
                search = "search[<words>]" in actions
                self.reply({"has_search_bar": search, "clickables": ["search"] * search + clicks})

            def do_POST(self):
                fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.headers["Content-Type"] == "application/json"
                self.reply(server.post(self.path.strip("/"), **fields))

            def reply(self, content):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

        super().__init__(Handler)

    def post(self, verb, env_idx=None, session_id=None, action=None):
        if verb == "create":
            number = 1000 + len(self.games)
            self.games[number] = WebShop(self.catalogue, observation="text", max_steps=10**6, leak_reward=True)
            return number
        if verb == "close":
            return {"closed": self.games.pop(env_idx) is not None}
        game = self.games[env_idx]
        if verb == "reset":
            return [game.reset(task=game.tasks()[session_id])[0], None]
        state, _, done, _, info = game.step(action)
        return {"state": state, "reward": info.get("score", 0.0), "done": done, "info": None}
