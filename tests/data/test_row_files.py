import json

import pytest
from datasets import Dataset

from boost_trl.data.row_files import dataset_from_rows, load_rows
from boost_trl.scripts.sft_self_refine import load_named_dataset


def write(path, *lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def test_columns_that_only_later_rows_have_are_kept(tmp_path):
    rows = load_rows(write(tmp_path / "rows.jsonl", '{"a": 1}', '{"a": 2, "source": "synthetic"}'))
    assert rows.to_list() == [{"a": 1, "source": None}, {"a": 2, "source": "synthetic"}]


def test_unicode_line_separators_end_no_row_and_blank_lines_are_none(tmp_path):
    text = "one\u2028two\u0085three\u000cfour"
    line = json.dumps({"text": text}, ensure_ascii=False)
    assert "\u2028" in line
    assert load_rows(write(tmp_path / "rows.jsonl", line, "", "  ", line))["text"][:] == [text, text]


def test_windows_line_ends_and_byte_order_mark_are_read(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes('\ufeff{"a": "é"}\r\n{"a": "b"}\r\n'.encode())
    assert load_rows(str(tmp_path / "rows.jsonl"))["a"][:] == ["é", "b"]


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"", "rows.jsonl: the file has no rows"),
        (b"\n \n", "rows.jsonl: the file has no rows"),
        (b'{"a": 1}\n\n{"a": 2\n', "rows.jsonl, line 3: no JSON"),
        (b'{"a": 1}\n[1]\n', "rows.jsonl, line 2: is a list"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "rows.jsonl, line 2: is not UTF-8; convert the file"),
        (b'{"a": 1}\n\n{"a": 2}\n{"a": "x"}\n{"a": 3}\n', "rows.jsonl, line 4, column `a`"),
        (b'{"a": "x"}\n{"a": "y"}\n{"a": 3}\n', "rows.jsonl, line 3, column `a`"),
        (b'{"b": 0, "a": [1]}\n{"b": 0, "a": "x"}\n', "rows.jsonl, line 2, column `a`"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_by_its_line(tmp_path, content, complaint):
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(ValueError) as error:
        load_rows(str(tmp_path / "rows.jsonl"))
    assert complaint in str(error.value)


@pytest.mark.parametrize("name, content", [("rows.jsonl", b'{"a": "\xf9"}\n'), ("rows.csv", b"a\n\xf9\n")])
def test_another_encoding_is_said_where_datasets_reads_the_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: is not UTF-8; convert the file, for example by `iconv"):
        load_named_dataset(str(tmp_path / name))


def test_numbers_of_both_kinds_and_partial_structs_are_one_type():
    rows = dataset_from_rows([{"a": 1, "t": {"x": 1}}, {"a": 2.5, "t": {"y": "z"}}], ["first", "second"])
    assert rows.to_list() == [{"a": 1.0, "t": {"x": 1, "y": None}}, {"a": 2.5, "t": {"x": None, "y": "z"}}]


def test_a_parquet_file_is_read(tmp_path):
    Dataset.from_list([{"a": 1}]).to_parquet(tmp_path / "rows.parquet")
    assert load_rows(str(tmp_path / "rows.parquet")).to_list() == [{"a": 1}]


def test_json_and_csv_files_are_read_too(tmp_path):
    (tmp_path / "rows.json").write_text('[{"a": 1}, {"a": 2}]')
    (tmp_path / "rows.csv").write_text("a\n1\n2\n")
    for name in ("rows.json", "rows.csv"):
        assert load_rows(str(tmp_path / name)).to_list() == [{"a": 1}, {"a": 2}]
        with pytest.raises(ValueError, match="has no split 'test'"):
            load_rows(str(tmp_path / name), split="test")
    (tmp_path / "bad.json").write_text('[{"a": 1}, {"a"')
    with pytest.raises(ValueError, match="bad.json: cannot be read"):
        load_rows(str(tmp_path / "bad.json"))


def test_a_file_of_another_type_is_named(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("a\n")
    with pytest.raises(ValueError, match=r"rows.txt: rows are read from files that end with .json, .jsonl"):
        load_rows(str(path))
