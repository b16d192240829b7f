import json

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from boost_trl.trainer.common.weight_files import EMBEDDINGS_NAME, EXAMPLE_WEIGHTS_NAME, ROW_NUMBER, ROWS_NAME


@pytest.fixture
def make_run(tmp_path):
    """A function that writes the folder of a run: 20 offline rows, of which 8 are planted noise, and 20 synthetic ones."""

    def make(name="boost", synthetic=True, learned=True, rows=True, **result):
        rng = np.random.default_rng(len(name))
        count = 40 if synthetic else 20
        index = np.arange(count)
        noise = (index < 8).astype(float)
        weights = np.exp(rng.normal(0, 0.3, count) - noise) if learned else np.ones(count)
        table = pd.DataFrame(
            {
                "index": index,
                "weight": weights / weights.mean(),
                "score": np.log(weights),
                "text": [f"row {i} <b>" for i in index],
                "return": -(index % 10).astype(float),
                "source": np.where(index < 20, "offline", "synthetic"),
                "category": [("tools", "fruits | nuts")[i % 2] for i in index],
                "noise_kind": np.where(index < 8, "bot", ""),
            }
        )
        folder = tmp_path / name
        folder.mkdir()
        table.to_parquet(folder / EXAMPLE_WEIGHTS_NAME)
        if synthetic:
            save_file({"embeddings": rng.normal(size=(count, 6)).astype(np.float32)}, folder / EMBEDDINGS_NAME)
        if rows:
            order = np.argsort(-weights, kind="stable")
            chosen = [int(i) for i in (*order[:3], *order[-3:])]
            whole = [
                {
                    "messages": [
                        {"role": "user", "content": f"<script>alert({i})</script> | pipes"},
                        {"role": "assistant", "content": "Is it *big* ![x](https://example.org/x.png)?"},
                        {"role": "user", "content": "Yes."},
                        {"role": "assistant", "content": "Blorp"},
                    ],
                    "rewards": [-1.0, 0.0],
                    ROW_NUMBER: i,
                }
                for i in chosen
            ]
            pq.write_table(pyarrow.Table.from_pylist(whole), folder / ROWS_NAME)
        if result:
            (folder / "result.json").write_text(json.dumps(result))
        return folder

    return make
