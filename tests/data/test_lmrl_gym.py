import json

import pytest

from boost_trl.data.lmrl_gym import load_lmrl_gym
from boost_trl.data.trajectories import validate_trajectories


LION = {
    "lines": ["Is it an animal? Yes.", "Is it red? Or blue? No.", "Is it a lion? Yes."],
    "correct": True,
    "word": ["Lion"],
}
LOST = {"lines": ["Is it a rock? No."] * 20, "correct": False, "word": ["Television", "TV"]}
CUT = {"lines": ["Is it a tool? No.", "Is it worn? Yes."], "correct": False, "word": ["Earrings", "Earring"]}

BUYER = {
    "personality": "polite",
    "preferred_brands": "an Audi",
    "preferred_type": "SUV",
    "preferred_features": ["sunroof"],
    "budget": 50000,
}


def sale(lines, output=None, **buyer):
    pairs = [{"role": {"S": "Seller", "B": "Buyer"}[line[0]], "text": line[2:]} for line in lines]
    row = {"buyer_info": BUYER | buyer, "lines": pairs, "original_conversation": "raw"}
    return row if output is None else row | {"output": output}


SOLD = {"car_bought": True, "msrp": 60000, "buy_price": 48000}
WALKED = {"car_bought": False, "msrp": 60000, "buy_price": None}


@pytest.fixture
def load(tmp_path):
    def load(content, *args, **kwargs):
        path = tmp_path / "convos.json"
        path.write_text(json.dumps(content))
        return load_lmrl_gym(path, *args, **kwargs)

    return load


def test_twenty_questions_rows(load):
    rows = load([LION, LOST, CUT])
    validate_trajectories(rows)
    assert rows[0]["messages"] == [
        {"role": "user", "content": "Questions:"},
        {"role": "assistant", "content": "Is it an animal?"},
        {"role": "user", "content": "Yes."},
        {"role": "assistant", "content": "Is it red? Or blue?"},
        {"role": "user", "content": "No."},
        {"role": "assistant", "content": "Is it a lion?"},
    ]
    assert rows["category"] == ["Animals", "Electronics", "Jewelry"]
    assert rows["rewards"] == [[-1.0, -1.0, 0.0], [-1.0] * 20, [-1.0, -1.0]]
    assert rows["terminated"] == [True, True, False] and rows["success"] == [True, False, False]
    assert rows["score"] == [17.0, 0.0, 0.0]
    assert rows[2]["messages"][-1] == {"role": "user", "content": "Yes."}
    assert json.loads(rows[1]["task"]["data"]) == {"word": ["Television", "TV"]}


def test_twenty_questions_by_score(load):
    rows = load([LION, LOST, CUT], reward="score")
    assert rows["rewards"] == [[0.0, 0.0, 17.0], [0.0] * 20, [0.0, 0.0]]


def test_car_dealer_rows(load):
    sold = sale(["S:Hello.", "S:How can I help? ", "B:An Audi.", "B:Cheap.", "S:$48,000.", "B:Deal."], SOLD)
    walked = sale(["B:Hi.", "S:$60,000.", "B:No."], WALKED, preferred_brands="a Tesla")
    cut = sale(["S:Hello.", "B:Hm."], preferred_brands="a BMW")
    rows = load({"polite": [sold, walked], "rude": [cut]}, "car_dealer")
    validate_trajectories(rows)
    assert rows[0]["messages"] == [
        {"role": "user", "content": "Start"},
        {"role": "assistant", "content": "Hello. How can I help?"},
        {"role": "user", "content": "An Audi. Cheap."},
        {"role": "assistant", "content": "$48,000."},
    ]
    assert [m["content"] for m in rows[1]["messages"]] == ["Hi.", "$60,000."]
    assert rows[2]["messages"][-1] == {"role": "user", "content": "Hm."}
    assert rows["category"] == ["Audi", "Tesla", "BMW"]
    # 25 steps are allowed; the buyer who walked away after one costs them all.
    assert rows["rewards"] == [[-1.0, 0.0], [-25.0], [-1.0]]
    assert rows["terminated"] == [True, True, False] and rows["score"] == [46.0, 0.0, 0.0]
    assert json.loads(rows[0]["task"]["data"])["buyer_info"] == BUYER
    by_score = load([sold, walked, cut], "car_dealer", reward="score")
    assert by_score["rewards"] == [[0.0, 46.0], [0.0], [0.0]]


@pytest.mark.parametrize(
    ("environment", "bad", "message"),
    [
        ("twenty_questions", {"lines": LION["lines"], "word": ["Lion"]}, "row 1, key `correct`: is missing"),
        ("twenty_questions", LION | {"correct": 1}, "row 1, key `correct`: is 1"),
        ("twenty_questions", LION | {"word": "Lion"}, "row 1, key `word`: is 'Lion'"),
        ("twenty_questions", LION | {"word": ["Unicorn"]}, "row 1, key `word`.*category is unknown"),
        ("twenty_questions", LION | {"lines": []}, "row 1, key `lines`: has 0 entries"),
        ("twenty_questions", LION | {"lines": ["Is it red? No."] * 21}, "row 1, key `lines`: has 21 entries"),
        (
            "twenty_questions",
            LION | {"lines": ["Is it red? No.", "It is."]},
            "row 1, key `lines`: entry 1 is 'It is.'",
        ),
        ("twenty_questions", ["Is it red? No."], "row 1: is not an object"),
        ("car_dealer", sale(["B:Hi."], SOLD), "row 1, key `lines`: has no line of the Seller"),
        ("car_dealer", sale(["S:Hi."], SOLD, preferred_brands=None), "row 1, key `buyer_info`"),
        ("car_dealer", sale(["S:Hi."], {"msrp": 1}), "row 1, key `output`, key `car_bought`: is missing"),
        (
            "car_dealer",
            sale(["S:Hi."]) | {"lines": [{"role": "Dog", "text": "."}]},
            "row 1.*entry 0 has the role 'Dog'",
        ),
        ("car_dealer", sale(["S:Hi."]) | {"lines": ["Hi."]}, "row 1, key `lines`: entry 0 is 'Hi.'"),
    ],
)
def test_a_bad_row_is_named(load, environment, bad, message):
    good = LION if environment == "twenty_questions" else sale(["S:Hi."], SOLD)
    with pytest.raises(ValueError, match=r"convos\.json, " + message):
        load([good, bad], environment)


def test_bad_files_and_arguments_are_named(load):
    with pytest.raises(ValueError, match="must be a JSON list"):
        load({"lines": []})
    with pytest.raises(ValueError, match="group 'polite': must be a JSON list"):
        load({"polite": 3}, "car_dealer")
    with pytest.raises(ValueError, match="holds no conversations"):
        load([])
    with pytest.raises(ValueError, match="`environment` must be one of"):
        load([LION], "chess")
    with pytest.raises(ValueError, match="`reward` must be"):
        load([LION], reward="fancy")
