"""A page of the original's site, read by hand."""

import pytest

from boost_trl.environments.webshop.html_page import Link, read_address, read_html
from boost_trl.environments.webshop.pages import Node


ITEM = """<html><head><title>hidden</title><style>h4 {}</style></head><body>
<h4>Instruction:<br>a hat &amp; scarf</h4>
<form method="post" action="/session"><button>Back to Search</button></form>
<a class="product-link" href="/item_page/1">B00000000A</a>
<input type="radio" id="r1" name="Color" data-url="/item_page/1/red"><label for="r1">red</label>
<!-- said nowhere --><script>var hidden;</script>
<p>Rating: N.A.</p>
</body></html>"""


def test_visible_text_buttons_products_and_options():
    page = read_html(ITEM)
    assert [(node.kind, node.text) for node in page.nodes] == [
        ("text", "Instruction:"),
        ("text", "a hat & scarf"),
        ("button", "Back to Search"),
        ("asin", "B00000000A"),
        ("option", "red"),
        ("text", "Rating: N.A."),
    ]
    assert Node("red", "option", "color") in page.nodes
    assert page.links == {
        "back to search": Link("/session", post=True),
        "b00000000a": Link("/item_page/1", post=False),
        "red": Link("/item_page/1/red", post=False),
    }
    assert (page.score, page.details) == (None, {})
    assert page.as_page("item", {"color": "red"}).kind == "item"


def test_the_page_after_a_purchase_shows_the_score():
    html = (
        "<body><h1>Thank you for shopping with us!</h1><h3>Your score (min 0.0, max 1.0)</h3><pre>0.5</pre>"
        "<h4>Reward Details</h4><pre>{'r_type': 1.0}</pre></body>"
    )
    page = read_html(html)
    assert (page.score, page.details) == (0.5, {"r_type": 1.0})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/fixed_1", ("index", {})),
        ("/search_results/fixed_1/hat+red/2", ("results", {})),
        ("/item_page/fixed_1/B0/hat/1/%7B%27color%27:%20%27red%27%7D", ("item", {"color": "red"})),
        ("/item_sub_page/fixed_1/B0/hat/1/Features/%7B%7D", ("features", {})),
        ("/done/fixed_1/B0/%7B%27size%27:%20%27s%27%7D", ("done", {"size": "s"})),
    ],
)
def test_kind_and_options_are_in_the_address(path, expected):
    assert read_address(f"http://localhost:3000{path}") == expected


def test_another_page_is_refused():
    with pytest.raises(ValueError, match="no page of WebShop, it has no instruction: 'It works!'"):
        read_html("<body><p>It works!</p></body>")
