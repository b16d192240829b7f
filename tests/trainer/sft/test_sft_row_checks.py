"""Rows that cannot be read are named by dataset, row and column, from Python and from the command line."""

import json
import re

import pytest
from datasets import Dataset
from sft_tiny import make_args, make_conversations, make_model, make_pairs, make_rows, make_tokenizer

from boost_trl import cli
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


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
}
COLUMNS = {
    "other columns": ({"question": ["w1"], "answer": ["w2"]}, "none of the columns to train on, only .*'answer'"),
    "no answers": ({"prompt": ["w1"]}, "'prompt' and no 'completion'"),
    "numbers": ({"text": [1, 2]}, "column 'text': holds int64; it must hold text or messages"),
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


def make_trainer(folder, place, dataset, **overrides):
    data = {"train_dataset": make_rows(), "validation_dataset": make_rows(3)}
    if place == "plain train_dataset":
        data = {"train_dataset": dataset}
    elif place == "eval_dataset['other']":
        data["eval_dataset"] = {"good": make_rows(2), "other": dataset}
    else:
        data[place] = dataset
    return BilevelSFTSelfRefineTrainer(
        make_model(), make_args(folder, **overrides), processing_class=make_tokenizer(), **data
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", BAD)
def test_cells(name, place, tmp_path, monkeypatch):
    columns, row, column, problem = BAD[name]
    monkeypatch.setattr(Dataset, "map", lambda *args, **kwargs: pytest.fail("the data is being prepared"))
    with pytest.raises(ValueError) as caught:
        make_trainer(tmp_path, place, Dataset.from_dict(columns))
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
