"""What no row and no field of a configuration may hold, by what the documentation says that it holds."""

import json
from dataclasses import fields
from types import NoneType, UnionType
from typing import get_args, get_origin, get_type_hints

from hypothesis import strategies as st


USER, ASSISTANT = {"role": "user", "content": "yes"}, {"role": "assistant", "content": "is it big ?"}
words = st.text("abcw123 ", min_size=1, max_size=6)
numbers = st.one_of(st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6).filter(lambda x: x != int(x)))
flags = st.booleans()
dicts = st.dictionaries(st.sampled_from(["role", "a", "b"]), words, min_size=1)
not_a_list = st.one_of(st.none(), numbers, flags, words, dicts)
not_text = st.one_of(st.none(), numbers, flags, st.lists(words, min_size=1, max_size=3), dicts)

# Turns that no dialogue has, in any format.
broken_turn = st.one_of(
    st.none(),
    numbers,
    words,
    st.just({"role": "user"}),
    st.just({"role": "user", "content": None}),
    st.just({"content": "yes"}),
    words.map(lambda content: {"role": None, "content": content}),
)
with_broken_turn = st.tuples(broken_turn, st.integers(0, 2)).map(
    lambda drawn: [USER, ASSISTANT][: drawn[1]] + [drawn[0]] + [USER, ASSISTANT][drawn[1] :]
)
messages = st.one_of(not_a_list, st.just([]), with_broken_turn)

# Dialogues that are no trajectory.
no_trajectory = st.one_of(
    messages,
    words.map(lambda role: [{"role": f"not {role}", "content": "yes"}, ASSISTANT]),
    st.integers(1, 3).map(lambda count: [USER] * count),
    st.integers(2, 4).map(lambda count: [USER, *[ASSISTANT] * count]),
    st.just([USER, {"role": "system", "content": "yes"}, ASSISTANT]),
    st.just([USER, ASSISTANT, USER]),
)
no_reward = st.one_of(
    st.none(), words, dicts, st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e12, -1e300])
)
rewards = st.one_of(
    not_a_list,
    st.just([]),
    no_reward.map(lambda reward: [reward]),
    st.lists(st.floats(-5, 5), min_size=2, max_size=4),
)
no_tokens = st.one_of(
    not_a_list,
    st.lists(st.floats(0.1, 0.9), min_size=3, max_size=3),
    st.lists(words, min_size=3, max_size=3),
    st.integers(-9, -1).map(lambda token: [4, token, 6]),
    st.just([4, None, 6]),
)
no_labels = st.one_of(no_tokens.filter(lambda cell: cell != [4, -100, 6]), st.lists(st.integers(4, 9), max_size=2))
weights = st.one_of(
    st.none(), words, st.floats(-1e6, -1e-6), st.sampled_from([float("nan"), float("inf")]), st.just([1.0])
)

CELLS = {
    "trajectories": {
        "messages": no_trajectory,
        "rewards": rewards,
        "terminated": st.one_of(numbers, words, st.just([])),
        "source": st.one_of(numbers, flags, words, st.just([])),
        "category": st.one_of(numbers.filter(lambda x: isinstance(x, float)), flags, st.just([]), dicts),
    },
    "turns": {
        "prompt": st.one_of(st.none(), numbers, flags, dicts, with_broken_turn),
        "completion": st.one_of(not_text, with_broken_turn, st.just([USER, ASSISTANT])),
        "reward": no_reward,
    },
    "text": {"text": not_text, "weight": weights},
    "pairs": {"prompt": not_text, "completion": not_text},
    "conversations": {"messages": messages},
    "tokens": {"input_ids": no_tokens, "labels": no_labels},
    "preferences": {"prompt": not_text, "chosen": not_text, "rejected": not_text},
}

_NO_VALUE = {
    int: st.one_of(st.none(), flags, words, st.floats(0.1, 9.9).filter(lambda x: x != int(x)), st.just([1])),
    float: st.one_of(st.none(), flags, words, st.just([1.0]), st.sampled_from([float("nan"), -float("inf")])),
    bool: st.one_of(st.none(), numbers, words, st.just([True])),
    str: st.one_of(st.none(), numbers, flags, st.just(["a"])),
    list: st.one_of(numbers, flags, words, st.lists(st.integers(), min_size=1, max_size=3)),
    dict: st.one_of(numbers, flags, words.map(lambda name: name + "="), st.lists(words, min_size=1, max_size=3)),
}


@st.composite
def wrong_settings(draw, settings: type, free: tuple[str, ...] = ()) -> tuple[str, object]:
    """A field of a class of settings, and a value that it cannot hold by its annotation."""
    hints = get_type_hints(settings)
    name = draw(st.sampled_from([field.name for field in fields(settings) if field.name not in free]))
    hint = hints[name]
    kinds = [get_origin(kind) or kind for kind in (get_args(hint) if isinstance(hint, UnionType) else (hint,))]
    # A mapping is also taken as JSON.
    kinds = [kind for kind in kinds if not (kind is str and dict in kinds)]
    value = draw(_NO_VALUE[next(kind for kind in kinds if kind is not NoneType)])
    if value is None and NoneType in kinds:
        value = json.dumps({"not": name})
        value = value if str not in kinds else [value]
    return name, value
