"""Pages in three formats, as the original writes them."""

from boost_trl.environments.webshop import WebShop

from .hats import INSTRUCTION, make_catalogue, make_product, play


def test_simple_text():
    shop = WebShop(make_catalogue(), observation="text", leak_reward=True)
    first, _ = shop.reset(seed=0)
    assert first == f"WebShop [SEP] Instruction: [SEP] {INSTRUCTION} [SEP] Search"
    head = f"Instruction: [SEP] {INSTRUCTION} [SEP] Back to Search [SEP] "
    assert shop.step("search[warm hat]")[0] == head + (
        "Page 1 (Total results: 2) [SEP] Next > [SEP] B000000001 [SEP] Warm Hat [SEP] $12.5 [SEP] "
        "B000000002 [SEP] Straw Hat & Cap [SEP] $12.5"
    )
    assert shop.step("click[next >]")[0] == head + "Page 2 (Total results: 2) [SEP] < Prev [SEP] Next >"
    item = head + (
        "< Prev [SEP] color [SEP] red [SEP] blue [SEP] size [SEP] small [SEP] large [SEP] Warm Hat [SEP] Price: $12.5 "
        "[SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now"
    )
    assert play(shop, "click[< prev]", "click[B000000001]")[0] == item
    assert shop.step("click[red]")[0] == item  # simple text does not show what is chosen
    assert shop.step("click[features]")[0] == head + "< Prev [SEP] soft wool [SEP] machine wash"
    assert play(shop, "click[< prev]", "click[description]")[0] == head + "< Prev [SEP] Keeps you warm."
    assert play(shop, "click[< prev]", "click[reviews]")[0] == head + "< Prev"
    last, reward, terminated, _, _ = play(shop, "click[< prev]", "click[Buy Now]")
    assert terminated
    assert last == (
        "Thank you for shopping with us! [SEP] Your code: [SEP] None [SEP] (Paste it in your MTurk interface.) [SEP] "
        'Purchased [SEP] asin [SEP] B000000001 [SEP] options [SEP] {"color": "red"} [SEP] attrs [SEP] None [SEP] '
        "category [SEP] None [SEP] query [SEP] None [SEP] product category [SEP] None [SEP] Target [SEP] asin [SEP] "
        "options [SEP] attrs [SEP] price upper [SEP] instuction text [SEP] category [SEP] product category [SEP] "
        "query [SEP] Goal [SEP] None [SEP] Reward [SEP] Your score (min 0.0, max 1.0) [SEP] 1.0 [SEP] "
        "Reward Details [SEP] None"
    )


def test_rich_text(shop):
    first, _ = shop.reset(seed=0)
    assert first == f"WebShop\nInstruction: \n{INSTRUCTION}\n[button] Search [button_]\n"
    head = f"Instruction:\n{INSTRUCTION}\n[button] Back to Search [button_]\n"
    play(shop, "search[warm hat]", "click[b000000001]")
    results = shop.step("click[< prev]")[0]
    assert results == head + (
        "Page 1 (Total results: 2)\n[button] Next > [button_]\n"
        "\n[clicked button] B000000001 [clicked button_]\nWarm Hat\n$12.5\n"
        "\n[button] B000000002 [button_]\nStraw Hat & Cap\n$12.5\n"
    )
    item = play(shop, "click[b000000001]", "click[blue]", "click[red]", "click[large]")[0]
    assert item == "You have clicked large.\nYou have clicked red.\n" + head + (
        "[button] < Prev [button_]\n"
        "color\n  [clicked button] red [clicked button_]\n  [button] blue [button_]\n"
        "size\n  [button] small [button_]\n  [clicked button] large [clicked button_]\n"
        "Warm Hat\nPrice: $12.5\nRating: N.A.\n"
        "[button] Description [button_]\n[button] Features [button_]\n[button] Reviews [button_]\n"
        "[button] Buy Now [button_]\n"
    )
    features = shop.step("click[features]")[0]
    assert features == head + "[button] < Prev [button_]\n soft wool\n machine wash\n"


def test_odd_records_in_both_texts():
    values = ['24"x36"', "é blue", "color", "description", "next >"]
    odd = make_product(
        "B000000001", "Warm Hat", options={"color": values}, BulletPoints=["", "two\nlines"], Description=""
    )
    shop = WebShop(make_catalogue(odd))
    shop.reset(seed=0)
    item = play(shop, "search[hat]", "click[b000000001]", 'click[24"x36"]')[0]
    # The original looks for the quoted value in an address that holds JSON: a value with quotes is never found there,
    # and one that is the name of a chosen option always is.
    assert item.startswith("You have clicked color.\nInstruction:")
    assert "[button] 24" in item
    assert shop.options == {"color": '24"x36"'}
    # The name of a sub page or button wins over an option of that name.
    assert shop.step("click[description]")[4]["page"] == "description"
    assert shop.step("click[< prev]")[4]["page"] == "item"
    assert shop.step("click[next >]")[4]["page"] == "item"
    assert shop.options == {"color": "next >"}
    assert shop.step("click[features]")[0].endswith("[button] < Prev [button_]\n \n two\nlines\n")


def test_compact_pages():
    shop = WebShop(make_catalogue(), observation="compact")
    assert shop.reset(seed=0)[0] == INSTRUCTION
    assert shop.step("search[warm hat]")[0] == "1 Warm Hat $12.5 | 2 Straw Hat & Cap $12.5"
    assert shop.admissible_actions() == ["click back to search", "click next >", "click 1", "click 2"]
    assert play(shop, "click[2]", "click[red]")[0] == ("Straw Hat & Cap $12.5 | color: [red] blue | size: small large")
    assert shop.step("click[features]")[0] == "soft wool | machine wash"
    assert play(shop, "click back to search", "search zebra")[0] == "nothing found"
    assert shop.step("click reviews")[4]["valid"] is False
    assert shop.system_prompt == ""
