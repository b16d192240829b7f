import pytest

from boost_trl.comparison.sft.contradiction_pool import contradiction_pool


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a tiny model, a pool of 40 rows and 24 trusted ones."""
    folder = tmp_path_factory.mktemp("own")
    experiment = contradiction_pool(0, num_rows=40)
    experiment.make_model().save_pretrained(folder / "model")
    experiment.tokenizer.save_pretrained(folder / "model")
    experiment.pool.select_columns(["prompt", "completion"]).to_json(folder / "pool.jsonl")
    experiment.validation.select(range(24)).to_json(folder / "trusted.jsonl")
    return folder
