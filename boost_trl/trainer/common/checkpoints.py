"""Checkpoints that a run can resume from: one that is whole, and that was written by a run with the same objective.

Trainer writes `trainer_state.json` last, so a checkpoint is whole once that is there. `begin_checkpoint` sees to it that one
which is written over another is not taken for whole by the other's.
"""

import errno
import json
import logging
import re
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError, safe_open
from transformers import TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import sort_checkpoints
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from boost_trl.trainer.common.checkpoint_error import CheckpointError


logger = logging.getLogger(__name__)

# How the libraries that write name what the system did: torch by its own words, safetensors by a number in the text.
_WRITE_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_WRITE_FAILURE = re.compile(
    rf"PytorchStreamWriter|inline_container|unexpected pos|iostream error|os error ({'|'.join(map(str, _WRITE_FAILURES))})\b"
)
SETTINGS_NAME = "bilevel_settings.json"
# Of Trainer's settings, those that decide what is minimised on which rows, ...
_OBJECTIVE = (
    *("seed", "data_seed", "label_smoothing_factor", "neftune_noise_alpha", "average_tokens_across_devices"),
    *("dataloader_drop_last", "train_sampling_strategy"),
)
# ... and how. A run may go on with others of these, but not unknowingly.
_OPTIMIZATION = (
    *("max_steps", "num_train_epochs", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"),
    *("reweighting_learning_rate", "selector_learning_rate"),
    *("optim", "optim_args", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
    *(
        "per_device_train_batch_size",
        "per_device_validation_batch_size",
        "gradient_accumulation_steps",
        "bf16",
        "fp16",
    ),
)
# What an optimizer's state holds, beside its moments.
_IN_OPTIMIZER = {
    *("learning_rate", "reweighting_learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
}


def run_settings(
    args: TrainingArguments, free: Collection[str], base_model: dict[str, str] | None = None
) -> dict[str, Any]:
    """Settings of the run that a checkpoint records.

    Args:
        args (`TrainingArguments`): of a class of its own, whose added fields all belong to the objective, except
            learning rates ...
        free (`Collection[str]`): ... and these.
        base_model (`dict[str, str]`, *optional*): as `base_model_record`, where the run depends on it.

    Returns:
        `dict` of JSON values: `objective` and `optimization` by field, `num_processes`, `base_model`.
    """
    own = {field.name for field in fields(args)} - {field.name for field in fields(TrainingArguments)}
    own -= {*free, *_OPTIMIZATION}
    values = args.to_dict()
    settings = {
        "objective": {name: values[name] for name in (*sorted(own), *_OBJECTIVE)},
        "optimization": {name: values[name] for name in _OPTIMIZATION if name in values},
        "num_processes": args.world_size,
        "base_model": base_model,
    }
    return json.loads(json.dumps(settings, default=str))


def begin_checkpoint(folder: Path, settings: dict[str, Any]) -> None:
    """Prepare the folder before Trainer writes a checkpoint, on the process that saves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
    (folder / SETTINGS_NAME).write_text(json.dumps(settings, indent=2) + "\n")


@contextmanager
def explained_write_failure(folder: Path) -> Iterator[None]:
    """Say what to do where a checkpoint cannot be written.

    Raises:
        CheckpointError: for a full disk and what else ends a write; any other error stays as it is.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if getattr(error, "errno", None) not in _WRITE_FAILURES and not _WRITE_FAILURE.search(str(error)):
            raise
        problem = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder} could not be written to its end ({problem}): is the disk full? What was saved before is whole: make room (this "
            "folder can go), and call again with `resume_from_checkpoint=True`; `save_total_limit` keeps fewer checkpoints"
        ) from error


def check_settings(folder: Path, present: dict[str, Any]) -> None:
    """Compare the settings of a checkpoint with those of this run, and name in a warning how it is optimised otherwise.

    Raises:
        CheckpointError: naming all settings that would change the objective.
    """
    saved = json.loads((folder / SETTINGS_NAME).read_text())
    # Older checkpoints call what is optimization now a part of the objective.
    changed = _changes(saved["objective"], present["objective"], without=_OPTIMIZATION)
    if changed:
        raise CheckpointError(
            f"{folder} was written with {changed}; set it to the checkpoint's value to continue that run, or start without "
            "`resume_from_checkpoint`"
        )
    before, now = ({**of["optimization"], "num_processes": of["num_processes"]} for of in (saved, present))
    taken, kept = (
        _changes(before, now, without=_IN_OPTIMIZER),
        _changes(before, now, without=before.keys() - _IN_OPTIMIZER),
    )
    parts = [f"{taken}, which counts from here on"] if taken else []
    parts += [f"{kept}, but the checkpoint's stays, since its optimizer holds it"] if kept else []
    if parts and PartialState().is_main_process:
        logger.warning(f"{folder} was written with {'; and with '.join(parts)}")


def _changes(saved: dict[str, Any], present: dict[str, Any], without: Collection[str] = ()) -> str:
    return "; ".join(
        f"`{name}={saved.get(name)!r}`, this run has {present.get(name)!r}"
        for name in sorted(saved.keys() | present.keys())
        if saved.get(name) != present.get(name) and name not in without
    )


def checkpoint_to_resume(
    resume_from_checkpoint: str | bool | None, output_dir: str, problem: Callable[[Path], str | None]
) -> str | None:
    """The folder to resume from, the same on all processes.

    Args:
        resume_from_checkpoint (`str` or `bool`, *optional*): as of `Trainer.train`. With `True`, the last checkpoint in
            `output_dir` that is whole; a warning names what is passed over.
        problem (`Callable`): `incomplete` with what the trainer needs.

    Raises:
        CheckpointError: if the given checkpoint is not whole, saying why, or if there is none.
    """
    if resume_from_checkpoint is None or resume_from_checkpoint is False:
        return None
    if resume_from_checkpoint is not True:
        why = _first_problem(resume_from_checkpoint, problem)
        if why is not None:
            raise CheckpointError(f"{resume_from_checkpoint} {why}")
        return resume_from_checkpoint
    folder = last_whole_checkpoint(output_dir, problem)
    if folder is None:
        raise CheckpointError(
            f"{output_dir} has no checkpoint that is whole; start without `resume_from_checkpoint`, or name one elsewhere"
        )
    return folder


def last_whole_checkpoint(output_dir: str, problem: Callable[[Path], str | None]) -> str | None:
    """The checkpoint in `output_dir` with the most steps that has no `problem` on any process, `None` without one. A warning
    names what is passed over."""
    for folder in broadcast_object_list([sort_checkpoints(output_dir)[::-1]])[0]:
        why = _first_problem(folder, problem)
        if why is None:
            return folder
        if PartialState().is_main_process:
            logger.warning(f"{folder} {why}; the checkpoint before it is tried")
    return None


def _first_problem(folder: str, problem: Callable[[Path], str | None]) -> str | None:
    """The same on all processes."""
    return next((why for why in gather_object([problem(Path(folder))]) if why is not None), None)


def incomplete(
    folder: Path,
    args: TrainingArguments,
    state_names: Collection[str],
    *,
    model_folder: str = "",
    deepspeed: bool = False,
    fsdp: bool = False,
) -> str | None:
    """Reason why `folder` is no whole checkpoint of this trainer, `None` if it is one.

    Args:
        args (`TrainingArguments`): of this run, for the process that it is.
        state_names (`Collection[str]`): files that the trainer adds to Trainer's.
        model_folder (`str`): where the model lies in it.
        deepspeed, fsdp (`bool`): who writes the model and the optimizer, in files of its own.
    """
    if not (folder / SETTINGS_NAME).is_file():
        return (
            f"has no {SETTINGS_NAME}: it is no checkpoint of this trainer, was written without a validation set, or was not "
            "written to its end"
        )
    if not (folder / TRAINER_STATE_NAME).is_file() or _is_cut(folder / TRAINER_STATE_NAME):
        return f"has no whole {TRAINER_STATE_NAME}: it was not written to its end"
    model = folder / model_folder
    for path in sorted({*folder.glob("*"), *model.glob("*")}):
        if _is_cut(path):
            return f"has a {path.relative_to(folder)} that ends too early"
    num_processes = json.loads((folder / SETTINGS_NAME).read_text())["num_processes"]
    names = [*state_names]
    if deepspeed:
        names.append("latest")
    else:
        names += [SCHEDULER_NAME] if fsdp else [SCHEDULER_NAME, OPTIMIZER_NAME]
        names += [SCALER_NAME] if args.fp16 else []
    if num_processes == args.world_size:
        names.append("rng_state.pth" if num_processes == 1 else f"rng_state_{args.process_index}.pth")
    if (model / SAFE_WEIGHTS_INDEX_NAME).is_file():
        shards = json.loads((model / SAFE_WEIGHTS_INDEX_NAME).read_text())["weight_map"].values()
        names += [str(Path(model_folder, name)) for name in sorted(set(shards))]
    elif not deepspeed and not fsdp and not [*model.glob("*model.safetensors")]:
        return "has no weights of the model"
    for name in names:
        if not (folder / name).is_file():
            return f"has no {name}: it was written with `save_only_model=True`, or lost it"
    return None


def _is_cut(path: Path) -> bool:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                return False
        except SafetensorError:
            return True
    if path.suffix == ".json":
        try:
            json.loads(path.read_bytes())
            return False
        except ValueError:
            return True
    return path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path)
