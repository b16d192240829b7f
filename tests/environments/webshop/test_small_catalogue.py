"""The generated small shop."""

from boost_trl.environments.webshop import (
    compact_vocabulary,
    generate_small_catalogue,
    purchase_reward,
)

from .goals import own_options


def test_small_shop():
    small = generate_small_catalogue()
    assert (len(small.products), len(small.goals)) == (288, 480)
    for goal in small.goals:
        product = small.by_asin[goal["asin"]]
        assert purchase_reward(goal, product, own_options(goal, product), small.prices[goal["asin"]])["reward"] == 1.0
    words = {word for goal in small.goals for word in goal["instruction_text"].split()}
    assert len(words) < 70
    assert generate_small_catalogue().fingerprint == small.fingerprint != generate_small_catalogue(1).fingerprint


def test_a_word_tokenizer_knows_all_words_of_the_small_shop(rows, shops):
    vocabulary = compact_vocabulary(shops["small"].catalogue)
    words = {word for row in rows["small"] for message in row["messages"] for word in message["content"].split()}
    assert words <= set(vocabulary)
    assert len(vocabulary) < 200
