"""When what is pushed, with a folder in the Hub's place; `tests/hub` has what comes of it, through the real client."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, RepoUrl
from huggingface_hub.utils import filter_repo_objects
from sft_tiny import make_args, make_model, make_pairs, make_tokenizer
from transformers import AutoModelForCausalLM

from boost_trl.selection import Selector
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.common.weight_files import ROWS_NAME


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder of a repository, into which uploads are copied."""
    folder = tmp_path / "hub"

    def upload_folder(self, *, run_as_future=False, **kwargs):
        if run_as_future:
            return background.submit(upload, **kwargs)
        upload(**kwargs)

    def upload(*, repo_id, folder_path, path_in_repo=None, ignore_patterns=None, **kwargs):
        time.sleep(0.2)
        if "fails" in kwargs["commit_message"]:
            raise OSError("no connection")
        assert repo_id == "user/selected"
        names = [path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*") if path.is_file()]
        for name in filter_repo_objects(names, ignore_patterns=ignore_patterns):
            target = folder / (path_in_repo or ".") / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(folder_path, name), target)

    monkeypatch.setattr(HfApi, "create_repo", lambda self, *args, **kwargs: RepoUrl("user/selected"))
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    with ThreadPoolExecutor(1) as background:
        yield folder


def train(folder, validation=True, **overrides):
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(folder, hub_model_id="user/selected", **overrides),
        train_dataset=make_pairs(),
        processing_class=make_tokenizer(),
        **({"validation_dataset": make_pairs(4)} if validation else {}),
    )
    trainer.train()
    return trainer


OURS = {"selector.safetensors", "selector_config.json", "example_weights.parquet"}


def test_what_is_pushed_opens_again(hub, tmp_path):
    trainer = train(tmp_path / "out", save_strategy="steps", save_steps=2)
    trainer.push_to_hub()
    files = {path.relative_to(hub).as_posix() for path in hub.rglob("*") if path.is_file()}
    assert OURS | {"README.md", "model.safetensors", "config.json", "tokenizer.json"} <= files
    assert not [name for name in files if name.startswith("checkpoint-") or name.endswith((".bin", ".pt"))]
    # Whole rows of the training data stay here.
    assert (tmp_path / "out" / ROWS_NAME).is_file() and ROWS_NAME not in files

    selector = Selector.from_pretrained(hub, num_examples=12)
    assert torch.equal(selector.logits(), trainer.selector.logits())
    with pytest.raises(ValueError, match="has 12 rows, but this dataset has 13"):
        Selector.from_pretrained(hub, num_examples=13)
    state = AutoModelForCausalLM.from_pretrained(hub).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("saved_before", [True, False])
@pytest.mark.parametrize("outcome", ["blocking", "in the background", "fails", "fails in the background"])
def test_a_push_leaves_the_pickled_arguments_where_they_were(outcome, saved_before, hub, tmp_path):
    trainer = train(tmp_path / "out")
    path = tmp_path / "out" / "training_args.bin"
    if saved_before:
        trainer.save_model()
    try:
        upload = trainer.push_to_hub(outcome, blocking="background" not in outcome)
        if upload is not None:
            upload.exception(timeout=10)
    except OSError:
        assert outcome == "fails"
    deadline = time.time() + 5
    while not path.is_file() and time.time() < deadline:  # callbacks run just after the result is there
        time.sleep(0.01)
    assert torch.load(path, weights_only=False).learning_rate == 1e-2
    assert not list(path.parent.glob("_training_args*"))
    assert not list(hub.rglob("*training_args.bin")) and (hub / "README.md").is_file() == ("fails" not in outcome)


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint"])
def test_pushes_while_training_leave_pickles_out_of_the_root(strategy, hub, tmp_path):
    train(tmp_path / "out", save_strategy="steps", save_steps=2, push_to_hub=True, hub_strategy=strategy)
    root = {path.name for path in hub.iterdir() if path.is_file()}
    assert OURS | {"model.safetensors"} <= root
    assert not [name for name in root if name.endswith((".bin", ".pt", ".pth"))]
    last = {path.name for path in (hub / "last-checkpoint").rglob("*")}
    assert ({"optimizer.pt", "bilevel_state.safetensors"} <= last) == (strategy == "checkpoint")


def test_without_a_validation_set_nothing_of_ours_is_pushed(hub, tmp_path):
    train(tmp_path / "out", validation=False, save_strategy="steps", save_steps=2, push_to_hub=True)
    root = {path.name for path in hub.iterdir() if path.is_file()}
    assert {"model.safetensors", "README.md"} <= root and not OURS & root
    # Pickled arguments are those of a run with `hub_token` in them.
    assert "training_args.bin" not in root
