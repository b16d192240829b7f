"""The pool that weights belong to: what its fingerprint sees, and columns that cannot be used."""

import json

import datasets
import pandas as pd
import pytest
from datasets import Dataset
from sft_tiny import make_args, make_rows

from boost_trl.trainer.row_weights.pool import make_pool


def pool(dataset, folder, learned=True, **overrides):
    return make_pool(dataset, make_args(folder, **overrides), learned)


MIXED = [
    {
        "messages": [{"role": "user", "content": f"w{i}" if i % 3 else None}] * (i % 4),
        "number": i if i % 5 else None,
        "flag": bool(i % 2),
        "scores": [1.5 * i] * (i % 3),
    }
    for i in range(1300)
]


def test_every_row_and_its_place_count(tmp_path):
    def fingerprint(rows):
        return pool(Dataset.from_list(rows), tmp_path).fingerprint

    rows = [dict(row) for row in make_rows(600)]
    original = fingerprint(rows)
    for place in (0, 1, 2, 299, 598, 599):
        assert fingerprint([*rows[:place], {"text": "w9"}, *rows[place + 1 :]]) != original
    assert fingerprint([rows[0], rows[2], rows[1], *rows[3:]]) != original
    assert fingerprint(rows[:-1]) != original
    assert fingerprint([{"prompt": row["text"]} for row in rows]) != original
    assert fingerprint([{"text": row["text"].split()} for row in rows]) != original
    # The same text, cut elsewhere.
    assert fingerprint([{"text": "ab"}, {"text": "c"}]) != fingerprint([{"text": "a"}, {"text": "bc"}])
    assert fingerprint([{"text": None}, {"text": "c"}]) != fingerprint([{"text": ""}, {"text": "c"}])


def test_how_rows_are_stored_does_not_count(tmp_path):
    whole = Dataset.from_list(MIXED)

    def part(rows):
        return Dataset.from_list(rows, features=whole.features)

    whole.to_parquet(tmp_path / "rows.parquet")
    layouts = [
        whole,
        datasets.concatenate_datasets([part(MIXED[:7]), part(MIXED[7:1003]), part(MIXED[1003:])]),
        part(MIXED[:3] + MIXED).select(range(3, 1303)),
        part(MIXED[::-1]).select(range(1299, -1, -1)),
        whole.shuffle(seed=1).flatten_indices(),
        Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path)),
        whole.with_format("torch", columns=["number"]),
    ]
    fingerprints = [pool(layout, tmp_path).fingerprint for layout in layouts]
    assert pool(whole.shuffle(seed=1), tmp_path).fingerprint == fingerprints.pop(4) != fingerprints[0]
    assert len(set(fingerprints)) == 1


def read_in_every_way(rows, folder, formats):
    """The same rows from a list, pandas, CSV, JSON lines and Parquet."""
    frame = pd.DataFrame(rows)
    frame.to_csv(folder / "rows.csv", index=False)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    frame.to_parquet(folder / "rows.parquet")
    readers = {
        "list": lambda: Dataset.from_list(rows),
        "swapped": lambda: Dataset.from_list([dict(reversed(row.items())) for row in rows]),
        "pandas": lambda: Dataset.from_pandas(frame),
        "csv": lambda: Dataset.from_csv(str(folder / "rows.csv"), cache_dir=str(folder)),
        "json": lambda: Dataset.from_json(str(folder / "rows.jsonl"), cache_dir=str(folder)),
        "parquet": lambda: Dataset.from_parquet(str(folder / "rows.parquet"), cache_dir=str(folder)),
    }
    return {name: readers[name]() for name in formats}


FLAT = [
    {
        "prompt": f"w{i} é\n,",
        "completion": None if i % 50 == 7 else f'"w{i}"',
        "number": i,
        "maybe": i if i % 3 else None,
        "share": i / 7,
        "flag": i % 2 == 0,
        "nothing": None,
    }
    for i in range(1200)
]
NESTED = [
    {
        "messages": [{"role": "user", "content": f"w{i}"}, {"content": f"w{i + 1}", "role": "assistant"}][: 1 + i % 2],
        "tools": [] if i % 2 else None,
        "number": i,
    }
    for i in range(1100)
]


@pytest.mark.parametrize(
    ("rows", "formats"),
    [
        (FLAT, ["list", "swapped", "pandas", "csv", "json", "parquet"]),
        (NESTED, ["list", "swapped", "pandas", "json", "parquet"]),
    ],
    ids=["flat", "nested"],
)
def test_the_reader_does_not_count(rows, formats, tmp_path):
    datasets_read = read_in_every_way(rows, tmp_path, formats)
    for name, dataset in datasets_read.items():
        assert [{k: v for k, v in row.items() if v is not None} for row in dataset] == [
            {k: v for k, v in row.items() if v is not None} for row in rows
        ], name
    fingerprints = {name: pool(dataset, tmp_path).fingerprint for name, dataset in datasets_read.items()}
    assert len(set(fingerprints.values())) == 1, fingerprints


@pytest.mark.parametrize("place", [0, 1199])
def test_every_cell_counts(place, tmp_path):
    original = pool(Dataset.from_list(FLAT), tmp_path).fingerprint
    changes = {
        "prompt": "w",
        "completion": "",
        "number": -1,
        "maybe": 2**53 + 1,
        "share": 0.1,
        "flag": None,
        "nothing": 0,
    }
    for column, value in changes.items():
        rows = [dict(row) for row in FLAT]
        rows[place][column] = value
        assert pool(Dataset.from_list(rows), tmp_path).fingerprint != original, column
    large = [Dataset.from_list([{"number": 2**53 + i}]) for i in range(2)]  # float64 holds only one of them
    assert pool(large[0], tmp_path).fingerprint != pool(large[1], tmp_path).fingerprint


def test_every_message_counts(tmp_path):
    original = pool(Dataset.from_list(NESTED), tmp_path).fingerprint
    for place, change in ((0, {"role": "system"}), (1099, {"content": "w"}), (1099, {"content": None})):
        rows = [{**row, "messages": [dict(message) for message in row["messages"]]} for row in NESTED]
        rows[place]["messages"][0].update(change)
        assert pool(Dataset.from_list(rows), tmp_path).fingerprint != original
    rows = [dict(row) for row in NESTED]
    rows[1]["messages"], rows[2]["messages"] = rows[1]["messages"][:1], rows[1]["messages"][1:] + rows[2]["messages"]
    assert pool(Dataset.from_list(rows), tmp_path).fingerprint != original
    rows = [dict(row) for row in NESTED]
    rows[0]["tools"] = []
    assert pool(Dataset.from_list(rows), tmp_path).fingerprint != original


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0, 0.0], [1.0, 1.0]], r"`train_dataset`, row 0, column 'weight': is \[1.0, 0.0\]; .* must be finite"),
        ([[1.0], [2.0]], r"row 0, column 'weight': is \[1.0\]"),
        ([[1.0], [2.0, 3.0]], r"row 0, column 'weight': is \[1.0\]"),
        ([1.0, 1e39], r"row 1, column 'weight': is 1e\+39; .* below 3.4e38"),
        (["1.0", "2.0"], "row 0, column 'weight': is '1.0'"),
    ],
)
def test_weight_columns_of_another_shape_or_size(weights, message, tmp_path):
    dataset = make_rows(2, {"weight": weights})
    for learned in (True, False):
        with pytest.raises(ValueError, match=message):
            pool(dataset, tmp_path, learned, weight_column="weight")
    with pytest.raises(ValueError, match=message):
        list(pool(dataset.to_iterable_dataset(), tmp_path, learned=False, weight_column="weight").identified())


def test_weights_that_float32_rounds_to_zero_leave_their_rows_out(tmp_path):
    dataset = make_rows(3, {"weight": [1.0, 1e-60, 1.0]})
    assert pool(dataset, tmp_path, weight_column="weight").num_examples == 2
    stream = dataset.to_iterable_dataset()
    assert len(list(pool(stream, tmp_path, learned=False, weight_column="weight").identified())) == 2


def test_labels_without_a_value(tmp_path):
    with pytest.raises(ValueError, match=r"`train_dataset`, row 1, column 'good' \(`label_column`\): is None"):
        pool(make_rows(3, {"good": [True, None, False]}), tmp_path, label_column="good")
    labels = pool(
        make_rows(4, {"weight": [1.0, 0.0, 1.0, 2.0], "good": [True, True, False, True]}),
        tmp_path,
        label_column="good",
        weight_column="weight",
    ).labels
    assert labels.tolist() == [True, False, True]
