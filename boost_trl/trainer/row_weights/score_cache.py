"""Results of validated selection, kept on disk for later runs that would compute the same."""

import hashlib
import json
from collections.abc import Callable

from accelerate.utils import broadcast_object_list
from safetensors.numpy import load_file, save_file

from boost_trl.cache_folder import cache_folder
from boost_trl.files import whole_file, write_whole
from boost_trl.trainer.row_weights.validated_selection import ValidatedSelectionResult


def cached_selection(
    made_with: list, compute: Callable[[], ValidatedSelectionResult], is_main_process: bool
) -> ValidatedSelectionResult:
    """Result of `compute`, from the disk of the main process if it was computed before with the same.

    Args:
        made_with (`list` of JSON values): all that the result follows from.
        compute (`Callable`): called on every process, or on none.
        is_main_process (`bool`): whether this process reads and writes.
    """
    key = hashlib.sha256(json.dumps(made_with, sort_keys=True, default=str).encode()).hexdigest()[:32]
    path = cache_folder("validated_selection") / f"{key}.safetensors"
    report_path = path.with_suffix(".json")
    found = None
    if is_main_process and path.is_file() and report_path.is_file():
        found = ValidatedSelectionResult(**load_file(path), report=json.loads(report_path.read_text()))
    found = broadcast_object_list([found])[0]
    if found is not None:
        return found
    result = compute()
    if is_main_process:
        with whole_file(path) as draft:
            save_file({"logits": result.logits, "losses": result.losses}, draft)
        write_whole(report_path, json.dumps(result.report))
    return result
