"""What is pushed to a Hub and opened from there, through the real client: every trainer, head, policy and selector, their cards, and
that no token goes along."""

import json
import os
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import torch
from hub_server import running_hub
from huggingface_hub import DatasetCard, ModelCard
from pyarrow.parquet import read_table

from boost_trl.trainer.common.weight_files import ROWS_NAME


TOKEN = "hf_RecognisableTokenOfThisTest"
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """`(hub, folder, results, log)` after `push_and_open.py` has run."""
    folder = tmp_path_factory.mktemp("pushed")
    with running_hub(TOKEN) as (hub, endpoint):
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(folder / "hf_home"),
            "HF_TOKEN": TOKEN,
            "PYTHONPATH": os.pathsep.join(
                [os.environ.get("PYTHONPATH", ""), str(HERE.parents[1]), str(HERE.parent / "trainer")]
            ),
        }
        command = [sys.executable, HERE / "push_and_open.py", folder, TOKEN]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        yield hub, folder, json.loads((folder / "results.json").read_text()), done.stdout + done.stderr


@pytest.mark.parametrize("part", ["sft", "dpo", "offline_rl", "adapter"])
def test_what_is_pushed_opens_again(part, pushed):
    _, _, results, _ = pushed
    for name, value in results[part].items():
        assert value is True or value == [True, True], f"{name}: {value}"


@pytest.mark.parametrize(
    "name, files",
    [
        ("selected", {"model.safetensors", "tokenizer.json", "selector.safetensors", "example_weights.parquet"}),
        ("selected", {"last-checkpoint/optimizer.pt", "last-checkpoint/bilevel_state.safetensors"}),
        ("preferred", {"model.safetensors", "selector_config.json", "example_weights.parquet"}),
        ("agent", {"model.safetensors", "backbone/model.safetensors", "value_heads.safetensors"}),
        ("adapted", {"backbone/adapter_model.safetensors", "backbone/adapter_config.json", "value_heads.safetensors"}),
        ("policy", {"model.safetensors", "value_heads_config.json", "tokenizer.json"}),
        ("heads", {"value_heads.safetensors", "value_heads_config.json"}),
        ("scorer", {"reweighting_head.safetensors", "reweighting_head_config.json"}),
        ("selector", {"selector.safetensors", "selector_config.json"}),
    ],
)
def test_repositories_hold_what_they_should(name, files, pushed):
    hub = pushed[0]
    found = set(hub.files(f"me/{name}"))
    assert files | {"README.md"} <= found
    # Pickles, but for those that a checkpoint cannot do without, and whole training rows stay here.
    assert not [name for name in found if "/" not in name and name.endswith((".bin", ".pt", ".pth"))]
    assert not [name for name in found if Path(name).name == ROWS_NAME]
    assert hub.repositories["model", f"me/{name}"].private == (name == "selected")


@pytest.mark.parametrize(
    "name, texts",
    [
        (
            "selected",
            ["on the [me/pool]", '`selector="bds"`', "rows | 12 |", "effective sample size", "| eval_loss |"],
        ),
        (
            "selected",
            [
                "- boost_trl: ",
                "- TRL: ",
                "4 trusted rows, by bilevel data selection",
                "xiao2026unified",
                "vonwerra2020trl",
                "me/selected",
            ],
        ),
        (
            "preferred",
            ["effective sample size", "vonwerra2020trl", "This model is a fine-tuned version.", "me/preferred"],
        ),
        (
            "agent",
            [
                "of [me/games]",
                "`mc`: Monte Carlo",
                "24 ",
                "BOOST",
                "effective sample size",
                "mean weight of `synthetic` trajectories",
                "| loss |",
            ],
        ),
        ("agent", ["AutoModelForCausalLM", "ValuePolicy", "verma2026boost", "vonwerra2020trl", "| TRL |", "me/agent"]),
        ("policy", ["AutoModelForCausalLM", "ValuePolicy", "`none`, 2: softmax of β · Q", "| boost_trl |"]),
        (
            "heads",
            [
                "Q head (`mc`)",
                "from boost_trl import ValueHeads",
                'value_heads = ValueHeads.from_pretrained("me/heads")',
            ],
        ),
        (
            "scorer",
            [
                "from boost_trl import ReweightingHead",
                'reweighting_head = ReweightingHead.from_pretrained("me/scorer")',
            ],
        ),
        ("selector", ["from boost_trl.selection import Selector", "12 training rows"]),
    ],
)
def test_model_cards(name, texts, pushed):
    content = pushed[0].files(f"me/{name}")["README.md"].decode()
    card = ModelCard(content)  # as the Hub's page reads it
    assert {"boost_trl", "trl"} <= set(card.data.tags) and not card.data.eval_results
    assert card.data.library_name in ("transformers", "boost_trl")
    for text in texts:
        assert text in card.text, text
    headings = re.findall("^## (.*)", card.text, flags=re.MULTILINE)
    assert "Citations" not in headings[:-1], headings
    assert "None" not in card.text and "More Information Needed" not in card.text


@pytest.mark.parametrize(
    "name, rows, columns, what",
    [
        ("weights", 12, ["index", "weight", "score", "text"], "[me/pool]"),
        ("pair-weights", 12, ["index", "weight", "score", "text"], "[me/preferred]"),
        ("trajectory-weights", 24, ["index", "weight", "score", "text", "return", "source"], "(BOOST)"),
    ],
)
def test_datasets_of_weights_are_ready_for_the_viewer(name, rows, columns, what, pushed):
    files = pushed[0].files(f"me/{name}", "dataset")
    assert set(files) == {"README.md", "data/train-00000-of-00001.parquet"}
    card = DatasetCard(files["README.md"].decode())
    assert {"boost_trl", "trl"} <= set(card.data.tags)
    (config,) = card.data["configs"]
    assert config == {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}
    assert [feature["name"] for feature in card.data["dataset_info"]["features"]] == columns
    assert card.data["dataset_info"]["splits"][0]["num_examples"] == rows
    assert read_table(BytesIO(files["data/train-00000-of-00001.parquet"])).column_names == columns
    for text in (what, f"rows | {rows} |", "effective sample size", *(f"| `{column}` |" for column in columns)):
        assert text in card.text, text


def readable(path: str, content: bytes) -> bytes:
    """A file's content without compression."""
    return str(read_table(BytesIO(content)).to_pydict()).encode() if path.endswith(".parquet") else content


def test_no_token_is_in_what_was_pushed(pushed):
    hub = pushed[0]
    for (kind, name), repository in hub.repositories.items():
        assert TOKEN not in " ".join(repository.messages)
        for files in repository.commits.values():
            for path, content in files.items():
                assert TOKEN.encode() not in readable(path, content), f"{kind} {name}: {path}"


def test_no_token_is_in_what_was_saved(pushed):
    folder = pushed[1]
    paths = [path for path in folder.rglob("*") if path.is_file() and folder / "hf_home" not in path.parents]
    assert {"training_args.bin", "trainer_state.json", "bilevel_settings.json"} <= {path.name for path in paths}
    for path in paths:
        assert TOKEN.encode() not in readable(path.name, path.read_bytes()), path
    args = torch.load(folder / "sft" / "training_args.bin", weights_only=False)
    assert args.hub_token is None and args.learning_rate == 1e-2


def test_no_token_is_said(pushed):
    _, _, results, log = pushed
    assert "401" in results["wrong token"] and TOKEN not in results["wrong token"]
    assert "Running training" in log and "hub_tokn" in log and "boost_trl version" in log
    assert TOKEN not in log
