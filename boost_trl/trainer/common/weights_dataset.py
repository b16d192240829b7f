"""The weights of training rows as a dataset on the Hub, by which others can filter the same rows."""

import numpy as np
from datasets import Dataset
from huggingface_hub import CommitInfo, DatasetCard, DatasetCardData, HfApi
from transformers import Trainer

from boost_trl.tables import markdown_table
from boost_trl.version import __version__


_COLUMNS = {
    "index": "the row's number in the training data, from 0",
    "weight": "how much the row counted, 1 on average; 0 for a row that was left out",
    "score": "the number that the weight was computed from",
    "text": "the row's first words",
    "return": "the sum of the trajectory's rewards",
    "turn_weights": "the weights of the assistant's turns, in order",
}
_LOW = 0.5


def weight_summary(weights: np.ndarray) -> list[tuple[str, str]]:
    """Rows for the table of a card: how many rows there are, how unequal their weights.

    Args:
        weights (`np.ndarray` of shape `(N,)`): at least one is positive.
    """
    weights = np.asarray(weights, dtype=np.float64)
    relative = weights / weights.mean()
    return [
        ("rows", f"{len(weights):,}"),
        ("effective sample size (1/Σw²)", f"{1 / np.square(weights / weights.sum()).sum():,.1f}"),
        ("largest weight (mean 1)", f"{relative.max():.3g}"),
        (f"rows that weigh less than {_LOW:g}", f"{(relative < _LOW).mean():.0%}"),
    ]


def push_weights_of(
    trainer: Trainer, repo_id: str, how: str, dataset_name: str | None, private: bool | None, token: str | None
) -> CommitInfo | None:
    """Upload the weights of a trainer as a dataset that the Hub's viewer shows and `load_dataset` opens.

    Args:
        trainer (`Trainer`): with `example_weights`.
        how (`str`): a sentence for the card: how the weights were learned.
        repo_id, dataset_name, private, token: as of `push_weights_to_hub`.

    Returns:
        [`~huggingface_hub.CommitInfo`]; `None` on all processes but the first.
    """
    table, args = trainer.example_weights(), trainer.args
    if not trainer.is_world_process_zero():
        return None
    token = args.hub_token if token is None else token
    private = args.hub_private_repo if private is None else private
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id
    card = _card(table, repo_id, how, dataset_name, trainer.hub_model_id)
    # Not `card.push_to_hub`, which asks the public Hub first, in old versions of the client even where `HF_ENDPOINT` names another one.
    api.upload_file(
        path_or_fileobj=str(card).encode(),
        path_in_repo="README.md",
        repo_id=repo_id,
        repo_type="dataset",
        commit_message="Upload the card of example weights",
    )
    # Adds the description of columns and files to the card, from which the viewer takes them.
    return table.push_to_hub(repo_id, token=token, commit_message="Upload example weights")


def _card(table: Dataset, repo_id: str, how: str, dataset_name: str | None, model_id: str | None) -> DatasetCard:
    data = DatasetCardData(
        pretty_name=f"Example weights: {repo_id.rpartition('/')[2]}",
        tags=["boost_trl", "trl", "data-selection"],
        source_datasets=None if dataset_name is None else [dataset_name],
    )
    of_what = "training rows"
    if dataset_name is not None:
        of_what = f"rows of [{dataset_name}](https://huggingface.co/datasets/{dataset_name})"
    of_which = "a model" if model_id is None else f"[{model_id}](https://huggingface.co/{model_id})"
    columns = [
        (f"`{name}`", _COLUMNS.get(name, f"`{name}` of the row in the training data")) for name in table.column_names
    ]
    sections = [
        f"# {repo_id.rpartition('/')[2]}",
        f"How much each of {len(table):,} {of_what} counted in the training of {of_which}. {how}",
        markdown_table([("", ""), *weight_summary(np.asarray(table["weight"][:]))], "ll"),
        *("## Filter by them", _usage(repo_id, dataset_name)),
        *("## Columns", markdown_table([("column", "what"), *columns], "ll")),
        f"Made with boost_trl {__version__}.",
    ]
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _usage(repo_id: str, dataset_name: str | None) -> str:
    pool = f'load_dataset("{dataset_name or "the/training-data"}", split="train")'
    lines = [
        "from datasets import load_dataset",
        "",
        f'weights = load_dataset("{repo_id}", split="train")',
        f"pool = {pool}  # the same rows in the same order",
        f'kept = pool.select(weights.filter(lambda row: row["weight"] >= {_LOW})["index"])',
    ]
    return "\n".join(["```python", *lines, "```"])
