"""What cannot carry example weights, said before any training."""

from datasets import IterableDataset
from transformers import Trainer
from trl.import_utils import is_vllm_available

from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig


def check_loss_can_be_weighted(args: BilevelSFTSelfRefineConfig, compute_loss_func) -> None:
    """
    Raises:
        ValueError: for a loss that is not a sum over tokens of TRL's own.
    """
    if compute_loss_func is not None:
        raise ValueError(
            "`compute_loss_func` returns one number for the whole batch, so examples cannot be weighted in it. Leave it "
            "out, or train without `validation_dataset` and without a weight column."
        )
    if args.label_smoothing_factor > 0 and args.loss_type == "nll":
        raise ValueError(
            "`label_smoothing_factor` computes one number for the whole batch, so examples cannot be weighted in it. "
            "Set it to 0."
        )


def check_parallelism(trainer: Trainer, padding_free: bool, learned: bool) -> None:
    """
    Raises:
        ValueError: for a parallelism that splits rows in a way that weights do not follow.
    """
    parallelism = trainer.accelerator.parallelism_config
    if parallelism is not None and parallelism.sp_enabled:
        raise ValueError(
            "Sequence parallelism (Ulysses/ALST) reduces the model's own loss across processes, so examples cannot be "
            "weighted in it. Use `sp_size=1`."
        )
    if parallelism is not None and parallelism.cp_enabled:
        if learned:
            raise ValueError(
                "Learned example weights need whole sequences for the validation batch; context parallelism splits them. "
                "Use `cp_size=1`. (A fixed weight column works with it.)"
            )
        if padding_free:
            raise ValueError(
                "Context parallelism carries one weight per row of the batch only, and `padding_free` puts several "
                "examples into one. Use `padding_free=False` or `cp_size=1`."
            )
    if learned and trainer.get_tp_size() > 1:
        raise ValueError(
            "Learned example weights are not supported with tensor parallelism, where several processes hold the same "
            "batch. Use `tp_size=1`."
        )


def check_online(args: BilevelSFTSelfRefineConfig, train_dataset, learned: bool) -> None:
    """
    Raises:
        ValueError: for online self-refining without learned weights, or on data that cannot be looked up.
        ImportError: for `use_vllm` without vLLM.
    """
    if args.online_ratio == 0:
        return
    if not learned:
        raise ValueError(
            "`online_ratio` needs `validation_dataset`: without one nothing says which of the model's own answers to trust."
        )
    if isinstance(train_dataset, IterableDataset):
        raise ValueError(
            "`online_ratio` does not work with streaming data: questions are looked up by row. Use a `Dataset`, or "
            "`online_ratio=0`."
        )
    if args.use_vllm and not is_vllm_available():
        raise ImportError("`use_vllm=True` needs vLLM: `pip install trl[vllm]`. Or leave `use_vllm` out.")
