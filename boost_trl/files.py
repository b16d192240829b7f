"""Files and folders that appear whole or not at all, however a process ends and however many write the same."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A file beside `path` to write; it takes the place of `path` when the block ends without an error.

    Args:
        path (`str` or `Path`): its folder is made if there is none. The file to write has the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A folder beside `folder` to fill; it becomes `folder` when the block ends without an error.

    If there is something in `folder` by then, another process was faster: that stays, and the new one is thrown away.
    """
    folder = Path(folder)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        try:
            draft.rename(folder)
        except OSError:
            if not (folder.is_dir() and any(folder.iterdir())):
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_whole(path: str | Path, text: str) -> None:
    """Write `text` to the file `path`, as [`whole_file`] does."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
