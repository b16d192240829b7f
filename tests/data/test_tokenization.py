import json
import warnings

import pytest
from datasets import Dataset

from boost_trl.data.chat_templates import PLAIN_CHAT_TEMPLATE, with_action_marks
from boost_trl.data.tokenization import check_prefix_property, tokenize_trajectories


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


EPISODE = [user("yes"), assistant("is it big ?"), user("no"), assistant("is it red ?"), user("no"), assistant("old ?")]


# Marks the last assistant turn by "!", which it takes back as soon as another turn follows.
REWRITING_TEMPLATE = (
    "{%- for m in messages %}{%- if m['role'] == 'assistant' %}{% generation %}"
    "{{- m['content'] + ('!' if loop.last else '') + eos_token }}{% endgeneration %}"
    "{%- else %}{{- m['content'] + eos_token }}{%- endif %}{%- endfor %}"
)


def with_template(tokenizer, template):
    """A tokenizer of the same words with another chat template."""
    other = type(tokenizer)(tokenizer_object=tokenizer._tokenizer, eos_token=tokenizer.eos_token)
    other.chat_template = template
    return other


def tokenize(tokenizer, messages, rewards, terminated=True, **options):
    dataset = Dataset.from_list([{"messages": messages, "rewards": rewards, "terminated": terminated}])
    return tokenize_trajectories(dataset, tokenizer, **options)[0]


def test_action_tokens_are_the_assistants_with_their_end_marks(tiny_tokenizer):
    episode = tokenize(tiny_tokenizer, EPISODE, [-1.0, -1.0, 0.0])
    words = tiny_tokenizer.convert_ids_to_tokens(episode.input_ids)
    end = tiny_tokenizer.eos_token
    expected = [
        "yes",
        end,
        "is",
        "it",
        "big",
        "?",
        end,
        "no",
        end,
        "is",
        "it",
        "red",
        "?",
        end,
        "no",
        end,
        "old",
        "?",
        end,
    ]
    assert words == expected
    assert episode.action_positions.tolist() == [2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 16, 17, 18]
    assert episode.rewards.tolist() == [0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 0, 0, 0]
    assert episode.returns.tolist() == [-2] * 5 + [-1] * 5 + [0] * 3
    assert episode.bootstrap_position == -1


def test_discount_applies_once_a_turn_or_once_a_token(tiny_tokenizer):
    by_turn = tokenize(tiny_tokenizer, EPISODE[:4], [-1.0, 8.0], discount=0.5)
    assert by_turn.returns.tolist() == [3.0] * 5 + [8.0] * 5
    assert by_turn.discounts.tolist() == [1, 1, 1, 1, 0.5] * 2
    by_token = tokenize(tiny_tokenizer, EPISODE[:4], [-1.0, 8.0], discount=0.5, discount_level="token")
    second = [8 * 0.5**k for k in (4, 3, 2, 1, 0)]
    last_of_first = -1 + 0.5 * second[0]
    assert by_token.returns.tolist() == pytest.approx([last_of_first * 0.5**k for k in (4, 3, 2, 1, 0)] + second)
    assert by_token.discounts.tolist() == [0.5] * 10
    with pytest.raises(ValueError, match="`discount_level` must be 'turn' or 'token', got 'tokens'"):
        tokenize(tiny_tokenizer, EPISODE[:4], [-1.0, 8.0], discount=0.5, discount_level="tokens")


@pytest.mark.parametrize("length, turns, bootstrap", [(18, 2, 15), (16, 2, 15), (15, 2, 13), (14, 2, 13), (13, 1, 8)])
def test_truncation_drops_whole_turns_and_keeps_the_returns_of_the_whole_episode(
    tiny_tokenizer, length, turns, bootstrap
):
    episode = tokenize(tiny_tokenizer, EPISODE, [-1.0, -1.0, 5.0], max_length=length)
    assert len(episode.action_positions) == 5 * turns
    assert episode.returns.tolist() == ([3.0] * 5 + [4.0] * 5)[: 5 * turns]
    # The reply after the last kept action is read if it fits.
    assert episode.bootstrap_position == bootstrap and len(episode.input_ids) == bootstrap + 1


def test_a_row_without_a_whole_action_is_dropped_and_counted(tiny_tokenizer, caplog):
    long = {"messages": [user("yes " * 30), assistant("old ?")], "rewards": [0.0], "terminated": True}
    short = {"messages": EPISODE[:2], "rewards": [0.0], "terminated": True}
    rows = tokenize_trajectories(Dataset.from_list([long, short]), tiny_tokenizer, max_length=20)
    assert rows[0] is None and rows[1] is not None
    assert "1 of 2 rows have no whole action" in caplog.text
    with pytest.raises(ValueError, match="no row has a whole action within `max_length`=20"):
        tokenize_trajectories(Dataset.from_list([long]), tiny_tokenizer, max_length=20)


def test_a_cut_episode_bootstraps_after_the_reply_or_on_its_last_action(tiny_tokenizer):
    with_reply = tokenize(tiny_tokenizer, EPISODE[:3], [-1.0], terminated=False)
    assert with_reply.bootstrap_position == 8  # the end mark of the second "no"
    without = tokenize(tiny_tokenizer, EPISODE[:2], [-1.0], terminated=False)
    assert without.bootstrap_position == without.action_positions[-1] == 6


def test_a_generation_prompt_is_part_of_the_bootstrap_state(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, PLAIN_CHAT_TEMPLATE)
    cut = tokenize(tokenizer, EPISODE[:3], [-1.0], terminated=False)
    assert tokenizer.convert_ids_to_tokens(cut.input_ids)[-1] == "assistant:"
    assert cut.bootstrap_position == len(cut.input_ids) - 1


# Says which tools there are and whether to think, before everything else.
TOOLS_TEMPLATE = (
    "{%- for tool in tools or [] %}{{- tool['function']['name'] + ' ' }}{%- endfor %}"
    "{%- set header = 'maybe ' if think is defined and think else '' %}"
    "{%- for m in messages %}{%- if m['role'] == 'assistant' %}{{- header }}{% generation %}"
    "{{- m['content'] + eos_token }}{% endgeneration %}{%- else %}{{- m['content'] + eos_token }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- header }}{%- endif %}"
)


def tool(name):
    return {"type": "function", "function": {"name": name, "description": "", "parameters": {}}}


def test_tools_and_template_arguments_are_rendered_as_trl_does(tiny_tokenizer, tmp_path, make_tiny_model):
    from trl import SFTConfig, SFTTrainer

    tokenizer = with_template(tiny_tokenizer, TOOLS_TEMPLATE)
    rows = [
        {"tools": json.dumps([tool("big"), tool("red")]), "chat_template_kwargs": {"think": True}},
        {"tools": json.dumps([tool("hot")]), "chat_template_kwargs": {"think": False}},
        {"tools": None, "chat_template_kwargs": {"think": True}},
        {"tools": json.dumps([tool("hot")]), "chat_template_kwargs": {"think": False}},
    ]
    rows = [{"messages": EPISODE, **row} for row in rows]
    args = SFTConfig(str(tmp_path), use_cpu=True, bf16=False, assistant_only_loss=True, report_to="none")
    trl = SFTTrainer(make_tiny_model(), args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    ours = tokenize_trajectories(Dataset.from_list([{**row, "rewards": [0.0, 0.0, 1.0]} for row in rows]), tokenizer)
    assert len(ours) == 4
    for row, theirs in zip(ours, trl.train_dataset):
        assert row.input_ids.tolist() == theirs["input_ids"]
        assert row.action_positions.tolist() == [i for i, label in enumerate(theirs["labels"]) if label != -100]
    words = [tokenizer.decode(row.input_ids).replace(tokenizer.eos_token, "").split() for row in ours]
    assert words[0][:4] == ["big", "red", "yes", "maybe"] and words[1][:3] == ["hot", "yes", "is"]
    assert words[2][:2] == ["yes", "maybe"] and words[3] == words[1]


def test_tools_may_be_a_list_and_reach_the_state_after_a_cut(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, TOOLS_TEMPLATE)
    row = {"messages": EPISODE[:3], "rewards": [0.0], "terminated": False, "tools": [tool("big")]}
    row["chat_template_kwargs"] = {"think": True}
    (cut,) = tokenize_trajectories(Dataset.from_list([row]), tokenizer)
    assert tokenizer.decode(cut.input_ids).replace(tokenizer.eos_token, "").split()[:3] == ["big", "yes", "maybe"]
    assert tokenizer.decode(cut.input_ids).split()[-1] == "maybe" and cut.bootstrap_position == len(cut.input_ids) - 1


@pytest.mark.parametrize(
    "column, value, complaint",
    [
        ("tools", "[{", "is no JSON"),
        ("tools", '"big"', "must be a list of tools"),
        ("tools", [1], "must be a list of tools"),
        ("chat_template_kwargs", "think", "must be a dict"),
        ("chat_template_kwargs", {"tokenize": True}, "sets 'tokenize', which is not the template's"),
    ],
)
def test_bad_template_arguments_are_named(tiny_tokenizer, column, value, complaint):
    rows = [{"messages": EPISODE, "rewards": [0.0, 0.0, 1.0], column: value}]
    with pytest.raises(ValueError, match=f"dataset, row 0, column `{column}`: .*{complaint}"):
        tokenize_trajectories(Dataset.from_list(rows), tiny_tokenizer)


def test_arguments_that_the_template_does_not_read_are_mentioned_once(tiny_tokenizer, caplog):
    row = {"messages": EPISODE, "rewards": [0.0, 0.0, 1.0], "tools": [tool("big")]}
    row["chat_template_kwargs"] = {"think": True}
    tokenize_trajectories(Dataset.from_list([row] * 3), with_template(tiny_tokenizer, TOOLS_TEMPLATE))
    assert not caplog.text
    tokenize_trajectories(Dataset.from_list([row] * 3), with_template(tiny_tokenizer, PLAIN_CHAT_TEMPLATE))
    assert caplog.text.count("does not read `think`, `tools`") == 1


def test_templates_that_rewrite_earlier_turns_are_refused(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, REWRITING_TEMPLATE)
    with pytest.raises(ValueError, match="rewrites earlier turns .seen at turn 1"):
        check_prefix_property(tokenizer, EPISODE, "pool, row 0")


def test_an_episode_may_begin_with_an_action(tiny_tokenizer):
    # Nothing precedes the first token, so it has no state; the others of the turn have one.
    episode = tokenize(tiny_tokenizer, EPISODE[1:4], [-1.0, 2.0])
    words = tiny_tokenizer.convert_ids_to_tokens(episode.input_ids)
    end = tiny_tokenizer.eos_token
    assert words == ["is", "it", "big", "?", end, "no", end, "is", "it", "red", "?", end]
    assert episode.action_positions.tolist() == [1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert episode.rewards.tolist() == [0, 0, 0, -1, 0, 0, 0, 0, 2]


def test_an_episode_that_begins_with_an_action_is_still_checked(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, REWRITING_TEMPLATE)
    with pytest.raises(ValueError, match="rewrites earlier turns .seen at turn 0"):
        check_prefix_property(tokenizer, EPISODE[1:4], "pool, row 0")


@pytest.mark.parametrize("format", ["torch", "numpy"])
def test_a_datasets_format_changes_no_token(tiny_tokenizer, make_dialogues, format):
    dataset = make_dialogues(4, seed=1)
    plain = tokenize_trajectories(dataset, tiny_tokenizer)
    formatted = tokenize_trajectories(dataset.with_format(format), tiny_tokenizer)
    assert [row.input_ids.tolist() for row in formatted] == [row.input_ids.tolist() for row in plain]
    assert [row.rewards.tolist() for row in formatted] == [row.rewards.tolist() for row in plain]


def test_a_missing_or_unmarked_template_is_replaced_with_a_warning(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, None)
    with pytest.warns(UserWarning, match="has no chat template; .*PLAIN_CHAT_TEMPLATE"):
        with_action_marks(tokenizer)
    assert tokenizer.chat_template == PLAIN_CHAT_TEMPLATE
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.warns(UserWarning, match="marks no assistant tokens"):
        with_action_marks(tokenizer)
    assert tokenizer.chat_template == PLAIN_CHAT_TEMPLATE
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_action_marks(tokenizer)
