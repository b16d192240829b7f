"""Uploads of checkpoints to the Hub while training goes on."""

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from huggingface_hub import CommitInfo
from transformers import Trainer, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy
from transformers.utils import PushInProgress
from transformers.utils.hub import hf_api

from boost_trl.models.policy_files import BACKBONE_FOLDER


# Of use for resuming only. The pickles among them stay away from who downloads a model.
_RESUME_ONLY = (
    *("optimizer*", "scheduler.pt", "scaler.pt", "rng_state*", "trainer_state.json", "bilevel_s*"),
    *("latest", "zero_to_fp32.py", TRAINING_ARGS_NAME),
)


# Trainer uploads no file of `output_dir` whose name begins so.
_PUT_ASIDE = f"_{TRAINING_ARGS_NAME}"


def put_pickled_arguments_aside(folder: str | Path) -> None:
    """Rename `training_args.bin`, where there is one, so that an upload of the folder leaves it out."""
    path = Path(folder, TRAINING_ARGS_NAME)
    if path.is_file():
        path.replace(path.with_name(_PUT_ASIDE))


def put_pickled_arguments_back(folder: str | Path) -> None:
    """Undo [`put_pickled_arguments_aside`]."""
    path = Path(folder, _PUT_ASIDE)
    if path.is_file():
        path.replace(path.with_name(TRAINING_ARGS_NAME))


def push_without_pickled_arguments(args: TrainingArguments, push: Callable[[], CommitInfo | Future | None]):
    """Call `push()` and return its result; `training_args.bin` is back in `output_dir` when the upload has ended, however it
    ended.

    The trainer's `save_model` puts the file aside when a push calls it.
    """
    if not args.should_save:
        return push()
    upload = None
    try:
        upload = push()
    finally:
        if isinstance(upload, Future):
            upload.add_done_callback(lambda _: put_pickled_arguments_back(args.output_dir))
        else:
            put_pickled_arguments_back(args.output_dir)
    return upload


def push_from_checkpoint(trainer: Trainer, folder: str) -> None:
    """`Trainer._push_from_checkpoint` for a model of more files than a language model's.

    Args:
        trainer (`Trainer`): its strategy says whether anything is uploaded now.
        folder (`str`): the checkpoint.
    """
    args, in_progress = trainer.args, trainer.push_in_progress
    is_busy = in_progress is not None and not in_progress.is_done()
    is_wanted = args.hub_strategy != HubStrategy.END and (args.hub_always_push or not is_busy)
    if trainer.is_world_process_zero() and is_wanted:
        trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
        step = trainer.state.global_step
        trainer.push_in_progress = _upload(folder, args, trainer.hub_model_id, step, in_progress)


def _upload(
    folder: str, args: TrainingArguments, repo_id: str, step: int, in_progress: PushInProgress | None
) -> PushInProgress:
    """Uploads without `training_args.bin`: all that are under way, those that were begun before included."""
    checkpoint = Path(folder)
    for path in [*checkpoint.glob("*"), *checkpoint.glob(f"{BACKBONE_FOLDER}/*")]:
        if path.is_file() and not any(fnmatch(path.name, pattern) for pattern in _RESUME_ONLY):
            # A copy, because the checkpoint may be rotated away before its upload ends.
            copied = Path(args.output_dir, path.relative_to(checkpoint))
            copied.parent.mkdir(exist_ok=True)
            shutil.copy(path, copied)
    message = f"Training in progress, step {step}"
    upload = partial(
        hf_api().upload_folder,
        repo_id=repo_id,
        token=args.hub_token,
        run_as_future=True,
        revision=args.hub_revision,
    )
    not_uploaded = ["_*", f"{PREFIX_CHECKPOINT_DIR}-*", TRAINING_ARGS_NAME]
    jobs = [upload(folder_path=args.output_dir, commit_message=message, ignore_patterns=not_uploaded)]
    if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        name = "last-checkpoint" if args.hub_strategy == HubStrategy.CHECKPOINT else checkpoint.name
        jobs.append(upload(folder_path=folder, path_in_repo=name, commit_message=f"{message}, checkpoint"))
    if in_progress is None or in_progress.is_done():
        return PushInProgress(jobs)
    in_progress.jobs.extend(jobs)
    return in_progress
