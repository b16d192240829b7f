"""Rows that cannot be read are named by dataset, row and column, from Python and from the command line."""

import json
import re

import pytest
from accelerate import PartialState
from datasets import Dataset
from sft_tiny import make_args, make_conversations, make_model, make_pairs, make_rows, make_tokenizer

from boost_trl import cli
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.row_weights.failed_preparation import prepare_or_name_row


def say(content, role="user", **more):
    return {"role": role, "content": content, **more}


GOOD = [say("w1"), say("w2", "assistant")]
BAD = {
    "no text": ({"text": ["w1 w2", None, "w3"]}, 1, "text", "is None"),
    "no text at all": ({"text": [None, None, None]}, 0, "text", "is None, as in all rows"),
    "no completion": ({"prompt": ["w1", "w2"], "completion": ["w3", None]}, 1, "completion", "is None"),
    "no prompt": ({"prompt": [None, "w2"], "completion": ["w3", "w4"]}, 0, "prompt", "is None"),
    "no messages": ({"messages": [GOOD, GOOD, None]}, 2, "messages", "is None"),
    "empty messages": ({"messages": [GOOD, [], GOOD]}, 1, "messages", "has no message"),
    "a message that is None": (
        {"messages": [GOOD, [GOOD[0], None]]},
        1,
        "messages",
        "has a message without 'content'",
    ),
    "no content": ({"messages": [GOOD, GOOD, [say(None), GOOD[1]]]}, 2, "messages", "has a message without 'content'"),
    "empty completion": ({"prompt": [GOOD[:1]] * 2, "completion": [GOOD[1:], []]}, 1, "completion", "has no message"),
    "no value": (
        {"conversations": [[{"from": "user", "value": "w1"}], [{"from": "user", "value": None}]]},
        1,
        "conversations",
        "has a message without 'value'",
    ),
    "messages among texts": (
        {"prompt": [GOOD, "w1", "w2"], "completion": ["w3"] * 3},
        0,
        "prompt",
        "holds list; it must",
    ),
    "a text among tokens": ({"input_ids": [[4, 5], "w1", [6]]}, 1, "input_ids", "is 'w1'; it must be a list of whole"),
    "half a token": ({"input_ids": [[4, 5], [4, 5], [6, 0.5]]}, 2, "input_ids", "is [6.0, 0.5]; it must be a list of"),
    "no role": ({"messages": [GOOD, [say("w1", None)]]}, 1, "messages", "has a message without 'role'"),
    "no sender": (
        {"conversations": [[{"from": None, "value": "w1"}], [{"from": "user", "value": "w1"}]]},
        0,
        "conversations",
        "has a message without 'from'",
    ),
    "a message that is text": ({"messages": [GOOD, ["w1", GOOD[1]]]}, 1, "messages", "has a message that is str;"),
    "text for messages": ({"messages": [GOOD, "w1"]}, 1, "messages", "holds str; it must hold messages"),
    "one message for a list": ({"messages": [GOOD, GOOD[0]]}, 1, "messages", "holds dict; it must hold messages"),
    "mixed messages": ({"messages": [GOOD, [say(3), 4], []]}, 1, "messages", "has a message that is int;"),
    "mixed and empty": (
        {"messages": [[*GOOD, {"role": "user", "content": 3}], [], "w1"]},
        1,
        "messages",
        "has no mes",
    ),
    "mixed text": ({"text": ["w1", 3]}, 1, "text", "holds int; it must hold text, as other rows do"),
    "mixed prompts": (
        {"prompt": ["w1", GOOD[:1]], "completion": ["w2", GOOD[1:]]},
        1,
        "prompt",
        "holds list; it must hold text",
    ),
    "no JSON": ({"messages": [GOOD, GOOD], "tools": ["[]", "[{"]}, 1, "tools", "is no JSON"),
    "a number for tools": ({"messages": [GOOD], "tools": [3]}, 0, "tools", "is 3; it must be a list of tools"),
    "no arguments": (
        {"messages": [GOOD, GOOD], "chat_template_kwargs": [{"a": 1}, None]},
        1,
        "chat_template_kwargs",
        "is None; it must be a dict",
    ),
    "no tokens": ({"input_ids": [[4, 5], None]}, 1, "input_ids", "is None"),
    "no token": ({"input_ids": [[4, 5], [4, None]]}, 1, "input_ids", "has an entry that is None"),
    "a negative token": ({"input_ids": [[4, 5], [4, -100]]}, 1, "input_ids", "has a negative entry"),
    "a negative label": (
        {"input_ids": [[4, 5], [4, 5]], "labels": [[-100, 5], [-100, -1]]},
        1,
        "labels",
        "has a negative entry",
    ),
    "no labels": ({"input_ids": [[4, 5], [4]], "labels": [[4, 5], None]}, 1, "labels", "is None"),
    "too few labels": ({"input_ids": [[4, 5]] * 2, "labels": [[4, 5], [4]]}, 1, "labels", "has another length"),
    "a long mask": (
        {"input_ids": [[4, 5]] * 2, "completion_mask": [[0, 1], [0, 1, 1]]},
        1,
        "completion_mask",
        "has another length than 'input_ids'",
    ),
}
COLUMNS = {
    "other columns": ({"question": ["w1"], "answer": ["w2"]}, "none of the columns to train on, only .*'answer'"),
    "no answers": ({"prompt": ["w1"]}, "'prompt' and no 'completion'"),
    "numbers": ({"text": [1, 2]}, "column 'text': holds int64; it must hold text"),
    "lists of text": ({"messages": [["w1", "w2"]]}, "column 'messages': holds list of string; it must hold messages"),
    "text as messages": ({"messages": ["w1"]}, "column 'messages': holds string; it must hold messages"),
    "messages as text": ({"text": [GOOD]}, "column 'text': holds list; it must hold text"),
    "other conversations": ({"conversations": [GOOD]}, r"\['content', 'role'\]; they must have 'from' and 'value'"),
    "broken tokens": (
        {"input_ids": [[4.0]]},
        "column 'input_ids': holds list of float64; it must hold lists of whole numbers",
    ),
    "other messages": (
        {"messages": [[{"speaker": "user", "text": "w1"}]]},
        r"its messages have \['speaker', 'text'\]",
    ),
    "both": (
        {"prompt": ["w1"], "completion": [GOOD[1:]]},
        "mixes text and messages: 'prompt' text, 'completion' messa",
    ),
}
PLACES = ["train_dataset", "validation_dataset", "eval_dataset", "eval_dataset['other']", "plain train_dataset"]


def make_trainer(folder, place, dataset, tokenizer=None, **overrides):
    data = {"train_dataset": make_rows(), "validation_dataset": make_rows(3)}
    if place == "plain train_dataset":
        data = {"train_dataset": dataset}
    elif place == "eval_dataset['other']":
        data["eval_dataset"] = {"good": make_rows(2), "other": dataset}
    else:
        data[place] = dataset
    return BilevelSFTSelfRefineTrainer(
        make_model(), make_args(folder, **overrides), processing_class=tokenizer or make_tokenizer(), **data
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", BAD)
def test_cells(name, place, tmp_path, monkeypatch):
    columns, row, column, problem = BAD[name]
    monkeypatch.setattr(Dataset, "map", lambda *args, **kwargs: pytest.fail("the data is being prepared"))
    with pytest.raises(ValueError) as caught:
        make_trainer(tmp_path, place, Dataset.from_dict(columns, on_mixed_types="use_json"))
    message = str(caught.value)
    assert message.startswith(f"`{place.removeprefix('plain ')}`, row {row}, column '{column}': {problem}")
    assert "\n" not in message


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", COLUMNS)
def test_columns(name, place, tmp_path):
    columns, message = COLUMNS[name]
    with pytest.raises(ValueError, match=message) as caught:
        make_trainer(tmp_path, place, Dataset.from_dict(columns))
    assert f"`{place.removeprefix('plain ')}`" in str(caught.value)


STRICT = (
    "{% for m in messages %}{% if m.role == 'narrator' %}{{ raise_exception('Unknown role:\\n' + m.role) }}{% endif %}"
    "{{ '<u> ' + m.content + ' <eos>' }}{% endfor %}"
)
REFUSED = {
    "role": (say("w1", "narrator"), "TemplateError: Unknown role: narrator"),
    "content": (say(3), "TypeError: can only concatenate"),
    "parts": (say([{"type": "text", "text": "w1"}]), "TypeError: can only concatenate"),
    # By the version of transformers, the template gets no content or None.
    "tool call": (say(None, "assistant", tool_calls=[{"name": "w1"}]), ""),
}


@pytest.mark.parametrize(("place", "name"), zip(PLACES, [*REFUSED, "role"]))
def test_rows_that_the_chat_template_refuses(name, place, tmp_path):
    message, problem = REFUSED[name]
    tokenizer = make_tokenizer()
    tokenizer.chat_template = STRICT
    rows = [GOOD] * 20
    rows[13] = [message, GOOD[1]]
    with pytest.raises(ValueError) as caught:
        dataset = Dataset.from_dict({"messages": rows}, on_mixed_types="use_json")
        make_trainer(tmp_path, place, dataset, tokenizer, shuffle_dataset=True)
    place = place.removeprefix("plain ")
    assert str(caught.value).startswith(f"`{place}`, row 13, column 'messages': cannot be prepared: {problem}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packing", [False, True])
def test_the_refused_row_is_the_users_where_others_have_weight_zero(packing, tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = STRICT
    messages = [GOOD] * 3 + [[say("w1", "narrator")]] * 2
    rows = Dataset.from_dict({"messages": messages, "weight": [0.0, 1.0, 1.0, 0.0, 1.0]})
    settings = {"weight_column": "weight", "packing": packing, "max_length": 16}
    with pytest.raises(ValueError, match="`train_dataset`, row 4, column 'messages': cannot be prepared: Templ"):
        make_trainer(tmp_path, "train_dataset", rows, tokenizer, **settings)


def test_the_preference_that_the_chat_template_refuses(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = STRICT
    rows = {"prompt": [GOOD[:1]] * 3, "chosen": [GOOD[1:]] * 3, "rejected": [GOOD[1:]] * 2 + [[say("w1", "narrator")]]}
    with pytest.raises(ValueError, match="`validation_dataset`, row 2: cannot be prepared: TemplateError"):
        make_trainer(tmp_path, "validation_dataset", Dataset.from_dict(rows), tokenizer, validation_loss="dpo")


def test_only_the_main_process_names_the_row(monkeypatch):
    """The others search beside it, and lose it before they have found anything."""
    dataset = Dataset.from_dict({"text": [str(i) for i in range(9)]})
    calls = []

    def prepare(rows):
        calls.append(len(rows))
        if len(calls) > 2:
            raise ConnectionError("connection closed by peer")
        if "7" in rows["text"]:
            raise KeyError("seven")

    monkeypatch.setattr(PartialState, "is_main_process", False)
    with pytest.raises(KeyError, match="seven"):
        prepare_or_name_row(prepare, dataset, "row {}".format)
    assert len(calls) > 2


@pytest.mark.parametrize("bad", range(9))
def test_the_row_that_is_named_has_the_error_that_is_shown(bad):
    """All rows go through one stage before any goes through the next, so that another row's error comes first."""

    def prepare(rows):
        if len(rows) == 9 and bad < 8:
            raise KeyError("of row 8")
        if str(bad) in rows["text"]:
            raise TypeError(f"of row {bad}")

    with pytest.raises(ValueError, match=f"^row {bad}: cannot be prepared: TypeError: of row {bad};"):
        prepare_or_name_row(prepare, Dataset.from_dict({"text": [str(i) for i in range(9)]}), "row {}".format)


def test_errors_that_are_not_of_a_row_stay_as_they_are(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="^Cannot use chat template functions"):
        make_trainer(tmp_path, "train_dataset", make_conversations(), tokenizer)


@pytest.mark.parametrize("place", ["train_dataset", "validation_dataset"])
@pytest.mark.parametrize("packing", [False, True])
def test_tokens_that_the_model_does_not_know(place, packing, tmp_path):
    rows = Dataset.from_dict({"input_ids": [[4, 5, 6]] * 3 + [[4, 48, 6]] + [[4, 5, 6]] * 2})
    with pytest.raises(
        ValueError, match=f"row 3 of `{place}` has the token 48 in 'input_ids', and the model knows 48"
    ):
        make_trainer(tmp_path, place, rows, packing=packing, max_length=12)


def test_a_bad_row_far_down_and_rows_that_are_left_out(tmp_path):
    texts = ["w1 w2"] * 2500
    texts[2100] = None
    with pytest.raises(ValueError, match="row 2100, column 'text': is None"):
        make_trainer(tmp_path, "train_dataset", Dataset.from_dict({"text": texts}))
    messages = [GOOD[: 1 + i % 2] for i in range(2500)]
    messages[2100] = [GOOD[0], say(None)]
    with pytest.raises(ValueError, match="row 2100, column 'messages': has a message without"):
        make_trainer(tmp_path, "validation_dataset", Dataset.from_dict({"messages": messages}))
    # Rows of weight 0 are as if they had never been there.
    rows = {"text": ["w1 w2", None, "w3 w4"], "weight": [1.0, 0.0, 1.0]}
    make_trainer(tmp_path, "train_dataset", Dataset.from_dict(rows), weight_column="weight", max_steps=1).train()
    with pytest.raises(ValueError, match="row 1, column 'text'"):
        make_trainer(tmp_path, "train_dataset", Dataset.from_dict(rows))


def test_preference_rows(tmp_path):
    rows = {"prompt": ["w1", "w2"], "chosen": ["w3", "w4"], "rejected": ["w5", None]}
    with pytest.raises(ValueError, match="`validation_dataset`, row 1, column 'rejected': is None"):
        make_trainer(tmp_path, "validation_dataset", Dataset.from_dict(rows), validation_loss="dpo")


def test_messages_that_call_a_tool_need_no_content(tmp_path):
    call = [{"type": "function", "function": {"name": "w3", "arguments": {"w": "w4"}}}]
    rows = [{"messages": [say("w1"), say(None, "assistant", tool_calls=call), say("w5", "tool")]}] * 3
    make_trainer(tmp_path, "train_dataset", Dataset.from_list(rows))


def test_what_trl_reads_is_not_refused(tmp_path):
    call = {"type": "function", "function": {"name": "w3", "arguments": {"w": "w4", "n": 3}}}
    parts = [{"type": "text", "text": "w1"}]
    messages = [GOOD, [say(parts), say(None, "assistant", tool_calls=[call]), say("w5", "tool")]]
    good = [
        {"messages": messages, "tools": ["[]", None]},
        {"text": ["w1 w2", "w3 w4"], "messages": ["w1", "w2"]},
        {"input_ids": [[4, 5, 6]] * 2, "labels": [[-100, 5, 6]] * 2, "completion_mask": [[0, 1, 1]] * 2},
        {"prompt": [GOOD, GOOD], "completion": [[say(parts, "assistant")], GOOD[1:]]},
    ]
    for columns in good:
        make_trainer(tmp_path, "train_dataset", Dataset.from_dict(columns, on_mixed_types="use_json"))


@pytest.mark.parametrize("make", [make_rows, make_pairs, make_conversations])
def test_good_rows_pass(make, tmp_path):
    selected = make(12).select([3, 1, 2])  # with an indices mapping
    make_trainer(tmp_path, "train_dataset", selected)


# From the command line


@pytest.fixture
def folder(tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    make_rows().to_json(tmp_path / "train.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("text\n")
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "broken.jsonl").write_text('{"text": "w1"}\n{"text"\n')
    (tmp_path / "columns.jsonl").write_text(json.dumps({"question": "w1"}))
    (tmp_path / "none.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("w1 w2", None)))
    return tmp_path


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("empty.jsonl", "the file has no rows"),
        ("empty.csv", "the file has no rows"),
        ("header.csv", "the file has no rows"),
        ("empty.parquet", "the file has no rows"),
        ("broken.jsonl", "broken.jsonl: cannot be read: .*in row 1"),
        ("columns.jsonl", "none of the columns to train on, only .'question'."),
        ("none.jsonl", "row 1, column 'text': is None"),
    ],
)
@pytest.mark.parametrize("option", ["dataset_name", "validation_dataset_name"])
def test_one_line_on_the_command_line(option, file, message, folder, capsys):
    files = {"dataset_name": "train.jsonl", "validation_dataset_name": "train.jsonl", option: file}
    arguments = ["sft-self-refine", "--model_name_or_path", str(folder / "model"), "--output_dir", str(folder / "out")]
    for name, value in files.items():
        arguments += [f"--{name}", str(folder / value)]
    assert cli.main([*arguments, "--use_cpu", "--bf16", "false", "--report_to", "none"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    said = [line for line in lines if line.startswith("boost-trl sft-self-refine: ")]
    assert len(said) == 1 and not [line for line in lines if "Traceback" in line]
    assert re.search(message, said[0])
    dataset = {"dataset_name": "`train_dataset`", "validation_dataset_name": "`validation_dataset`"}[option]
    assert (dataset if file in ("columns.jsonl", "none.jsonl") else file) in said[0]


def test_a_split_that_is_not_there(folder, capsys):
    arguments = ["sft-self-refine", "--model_name_or_path", str(folder / "model"), "--output_dir", str(folder / "out")]
    arguments += ["--dataset_name", str(folder / "train.jsonl"), "--dataset_train_split", "training"]
    assert cli.main([*arguments, "--use_cpu", "--bf16", "false"]) == 2
    assert "has no split 'training'; it has ['train']; set `--dataset_train_split`" in capsys.readouterr().err
