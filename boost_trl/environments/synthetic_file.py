"""Rows of synthetic self-play on disk, from which a run that was killed goes on."""

import json
import os
from pathlib import Path
from typing import Any

from boost_trl.files import whole_file


# What older files have in the place of the environment's name: the class of its rules.
_ENVIRONMENT_OF_RULES = {
    "CarDealerRules": "car_dealer",
    "SelfPlayRules": "twenty_questions",
    "TwentyQuestionsRules": "twenty_questions",
    "WebShopRules": "webshop",
    "WebShopSelfPlay": "webshop",
}


class SyntheticFile:
    """A JSON-lines file that grows batch by batch, beside the settings that its rows were made with.

    Args:
        path (`str`): the file; its settings are in `<path>.settings.json`.
        settings (`dict`): JSON values; `"rules"` begins with the environment's name, `None` for rules without one.
        num_rows (`int`): rows of the finished file.
        batch_size (`int`): rows of a batch.
        rules_class (`str`): name of the rules' class, by which older files are known.

    Attributes:
        rows (`list[dict]`): those of the whole batches that are there.

    Raises:
        ValueError: if the file holds rows of other settings.
    """

    def __init__(
        self, path: str | os.PathLike, settings: dict[str, Any], num_rows: int, batch_size: int, rules_class: str
    ):
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []
        settings_path = self.path.with_name(self.path.name + ".settings.json")
        if not self.path.exists():
            self._lost_path.unlink(missing_ok=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            settings_path.write_text(json.dumps(settings, indent=2) + "\n")
            return
        known = json.loads(settings_path.read_text()) if settings_path.exists() else {}
        self._check_settings(known, json.loads(json.dumps(settings)), rules_class)
        self.rows = self._whole_batches(num_rows, batch_size)

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Write one batch; what is `lost` goes into a file beside, so that all rows of this one can be trained on."""
        for path, some in (
            (self._lost_path, [row for row in rows if "lost" in row]),
            (self.path, [row for row in rows if "lost" not in row]),
        ):
            if some or path == self.path:
                with path.open("a") as file:
                    file.write("".join(json.dumps(row) + "\n" for row in some))

    @property
    def _lost_path(self) -> Path:
        return self.path.with_name(self.path.name + ".lost.jsonl")

    def _check_settings(self, known: dict[str, Any], settings: dict[str, Any], rules_class: str) -> None:
        environment = settings["rules"][0]
        recorded, *judgement = known.get("rules") or [None]
        if recorded is not None and (recorded == rules_class or _ENVIRONMENT_OF_RULES.get(recorded) == environment):
            known = known | {"rules": [environment, *judgement]}
        differing = [
            f"{key}={known.get(key)!r}, now {settings[key]!r}" for key in settings if known.get(key) != settings[key]
        ]
        if differing:
            raise ValueError(
                f"{self.path} holds rows of other settings ({'; '.join(differing)}); remove it or name another"
            )

    def _whole_batches(self, num_rows: int, batch_size: int) -> list[dict[str, Any]]:
        """The rows up to the last whole batch; a part of a batch, which a kill leaves, is cut off the files."""
        files = [path for path in (self.path, self._lost_path) if path.exists()]
        lines = {path: path.read_bytes().splitlines(keepends=True) for path in files}
        rows = {path: [json.loads(line) for line in lines[path] if line.endswith(b"\n")] for path in files}
        known = {row.get("parent", number): row for path in files for number, row in enumerate(rows[path])}
        whole = next(number for number in range(len(known) + 1) if number not in known)
        whole = num_rows if whole >= num_rows else whole - whole % batch_size
        for path in files:
            kept = [row.get("parent", number) < whole for number, row in enumerate(rows[path])]
            if sum(kept) < len(lines[path]):
                with whole_file(path) as draft:
                    draft.write_bytes(b"".join(line for line, is_kept in zip(lines[path], kept) if is_kept))
        return [known[number] for number in range(whole)]
