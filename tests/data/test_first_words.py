import pytest
from datasets import Dataset

from boost_trl.data.first_words import first_words, first_words_of


def turns(*contents, role="user"):
    return [{"role": role, "content": content} for content in contents]


@pytest.mark.parametrize(
    "row, expected",
    [
        (
            {"messages": turns("Be brief.", role="system") + turns("Ask  away.\n", "Is it\talive?")},
            "Ask away. Is it alive?",
        ),
        ({"messages": turns("Be brief.", role="system")}, "Be brief."),
        ({"prompt": "2 + 2 =", "completion": " 4", "source": "a book"}, "2 + 2 = 4"),
        ({"prompt": turns("Hi"), "completion": turns("Ho", role="assistant")}, "Hi Ho"),
        ({"text": "Once upon a time", "messages": None}, "Once upon a time"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]},
            "What is it?",
        ),
        ({"messages": [{"role": "assistant", "content": None}, *turns("yes")]}, "yes"),
        ({"question": "Why?", "number": 3, "answer": "Because."}, "Why? Because."),
        ({"input_ids": [1, 2], "labels": [1, 2]}, ""),
        ({"text": "x" * 80}, "x" * 80),
        ({"text": "x" * 81}, "x" * 79 + "…"),
        ({"text": "字" * 100_000}, "字" * 79 + "…"),
    ],
)
def test_the_first_words_of_every_format(row, expected):
    assert first_words(row) == expected


def test_a_dataset_whatever_format_it_is_shown_in():
    rows = Dataset.from_list([{"text": "one row", "n": 1}, {"text": "another", "n": 2}])
    assert first_words_of(rows.with_format("torch", columns=["n"])) == ["one row", "another"]
    assert first_words_of(Dataset.from_dict({"n": [1, 2]})) == ["", ""]
