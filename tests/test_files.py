"""Files and folders that appear whole or not at all."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boost_trl.files import whole_file, whole_folder, write_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_seen_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "table.parquet"
    with whole_file(path) as draft:
        draft.write_text("half")
        assert not path.exists() and draft.suffix == path.suffix
    assert path.read_text() == "half" and names(path.parent) == ["table.parquet"]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "result.json"
    write_whole(path, "é")
    with pytest.raises(RuntimeError), whole_file(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "é" and names(tmp_path) == ["result.json"]


def test_a_killed_process_leaves_no_half_of_anything(tmp_path):
    code = (
        "import os, sys\nfrom boost_trl.files import whole_file, whole_folder\n"
        "with whole_file(sys.argv[1] + '/a') as a, whole_folder(sys.argv[1] + '/b') as b:\n"
        "    a.write_text('half'); (b / 'x').write_text('half'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_folder_is_seen_only_when_it_is_whole(tmp_path):
    folder = tmp_path / "models" / "tiny"
    with pytest.raises(RuntimeError), whole_folder(folder) as draft:
        raise RuntimeError
    assert names(tmp_path / "models") == []
    with whole_folder(folder) as draft:
        (draft / "config.json").write_text("{}")
        assert not folder.exists()
    assert names(folder) == ["config.json"] and names(tmp_path / "models") == ["tiny"]


def test_of_two_that_make_the_same_folder_the_first_one_stays(tmp_path):
    folder = tmp_path / "tiny"
    with whole_folder(folder) as draft:
        (draft / "config.json").write_text("second")
        folder.mkdir()
        (folder / "config.json").write_text("first")
    assert (folder / "config.json").read_text() == "first" and names(tmp_path) == ["tiny"]


def test_readers_never_see_a_part(tmp_path):
    path, text = tmp_path / "result.json", "x" * 100_000
    write_whole(path, text)

    def read(_):
        return len(path.read_text())

    with ThreadPoolExecutor(4) as pool:
        lengths = pool.map(read, range(200))
        for _ in range(50):
            write_whole(path, text)
        assert set(lengths) == {len(text)}


def test_whatever_is_renamed_into_place_is_renamed_here():
    import boost_trl

    package = Path(boost_trl.__file__).parent
    for path in package.rglob("*.py"):
        if path.name != "files.py":
            assert "os.replace(" not in path.read_text(), f"{path}: use boost_trl.files"
