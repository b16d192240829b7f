"""Support of DeepSpeed, and refusal of what cannot work; `fsdp` is about FSDP2.

Under ZeRO-3 every process holds a piece of every parameter, and a module's parameters are whole only within its own
forward and backward. Whoever reads or writes them elsewhere does so in [`gathered`] or [`whole_model`], which all
processes have to enter together.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments

from boost_trl.trainer.common.fsdp import is_sharded


def check_deepspeed_config(args: TrainingArguments) -> None:
    """Refuse what cannot work, before anything is loaded.

    Raises:
        ValueError: for an optimizer of DeepSpeed's own making, or optimizer states on NVMe.
    """
    plugin = args.deepspeed_plugin
    if plugin is None:
        return
    if "optimizer" in plugin.deepspeed_config:
        raise ValueError(
            "the DeepSpeed config has an `optimizer`, which cannot freeze one policy while the other is trained: remove "
            "that entry, and choose the optimizer with `optim` and `learning_rate`, or `optimizer_cls_and_kwargs`"
        )
    zero = plugin.deepspeed_config.get("zero_optimization", {})
    for name in ("offload_optimizer", "offload_param"):
        if (zero.get(name) or {}).get("device") == "nvme":
            raise ValueError(
                f"the DeepSpeed config has `{name}.device='nvme'`, from where θ ← ψ cannot copy: use 'cpu' or 'none'"
            )
    if zero.get("stage") == 3:
        # What is saved is whole, whatever the file says; the pieces are in the checkpoints.
        zero["stage3_gather_16bit_weights_on_model_save"] = True


def check_wrapper(args: TrainingArguments) -> None:
    """Refuse the wrapper of `Trainer` that cannot work. To be called when `Trainer` is initialised: it counts the GPUs
    of a model that is spread over several as one.

    Raises:
        ValueError: for `nn.DataParallel`, saying what to do instead.
    """
    if args.n_gpu > 1:
        raise ValueError(
            f"one process sees {args.n_gpu} GPUs, for which `Trainer` uses `nn.DataParallel`, and that does not work here: "
            "start with `accelerate launch` or `torchrun`, or show one GPU with `CUDA_VISIBLE_DEVICES=0`"
        )


def check_engine_is_new(engine: nn.Module | None, model: nn.Module) -> None:
    """Refuse a second training under DeepSpeed, whose engine `Trainer` has taken apart after the first, or under FSDP2, which
    would take in pieces what is in pieces.

    Args:
        engine (`DeepSpeedEngine`, *optional*): `trainer.deepspeed`.
        model (`nn.Module`): `trainer.model`.

    Raises:
        ValueError: saying what to do instead.
    """
    name = "DeepSpeed" if engine is not None else "FSDP2" if is_sharded(model) else None
    if name is not None:
        raise ValueError(
            f"`train()` runs once under {name}: make a new trainer, which goes on from a checkpoint with "
            "`train(resume_from_checkpoint=True)` and a larger `max_steps`"
        )


def is_partitioned(model: nn.Module) -> bool:
    """Whether ZeRO-3 keeps the parameters in pieces."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def gathered(parameters: Iterable[nn.Parameter], modify: bool = False) -> AbstractContextManager[None]:
    """A context in which `parameters` are whole on every process; nothing to do unless they are partitioned.

    Args:
        parameters (`Iterable[nn.Parameter]`): the same on all processes.
        modify (`bool`, *optional*, defaults to `False`): keep what the main process writes into them.
    """
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not partitioned:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0 if modify else None)


def whole_shape(parameter: nn.Parameter) -> torch.Size:
    """The shape of a parameter, partitioned or not."""
    return getattr(parameter, "ds_shape", parameter.shape)


def keeps_copies(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether this process keeps what is computed from whole `parameters`: under ZeRO-3 and FSDP2 the main process alone."""
    return (
        not any(hasattr(p, "ds_id") or isinstance(p, DTensor) for p in parameters) or torch.distributed.get_rank() == 0
    )


@contextmanager
def whole_model(model: nn.Module) -> Iterator[None]:
    """A context in which `model` is as without an engine: whole on every process, each of which may run (`generate`), copy
    or save it, or leave it at that, without the others.

    Args:
        model (`nn.Module`): wrapped (`trainer.model_wrapped`), or not wrapped yet.
    """
    if not is_partitioned(model):
        yield
        return
    from trl.models.utils import add_hooks, remove_hooks

    with gathered(model.parameters()):
        remove_hooks(model)
        try:
            yield
        finally:
            add_hooks(model)


def cast_like_partitioned(model: nn.Module) -> None:
    """Give what is added to a model that `from_pretrained` has partitioned (value heads, adapters) its dtype: ZeRO-3 wants a
    single one, and casts only a model that is whole."""
    dtypes = {parameter.ds_tensor.dtype for parameter in model.parameters() if hasattr(parameter, "ds_id")}
    if len(dtypes) == 1:
        dtype = dtypes.pop()
        for parameter in model.parameters():
            if not hasattr(parameter, "ds_id"):
                parameter.data = parameter.data.to(dtype)


@contextmanager
def without_zero3(args: TrainingArguments) -> Iterator[None]:
    """A context in which transformers and TRL know of no ZeRO-3: `from_pretrained` does not partition what it loads, and a
    model that is whole before training runs as it is."""
    from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

    # Of a config of the arguments, or of `accelerate launch`.
    config = getattr(args, "hf_deepspeed_config", None) or getattr(args.deepspeed_plugin, "dschf", None)
    if config is None:
        yield
        return
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(config)


def innermost_optimizer(optimizer) -> torch.optim.Optimizer:
    """The torch optimizer inside Accelerate's and DeepSpeed's wrappers."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def optimized_tensors(optimizer) -> Iterator[tuple[dict, torch.Tensor]]:
    """Tensors that the innermost optimizer steps, each with its parameter group: parameters or, under ZeRO, flat
    float32 partitions of this process."""
    inner = innermost_optimizer(optimizer)
    while hasattr(optimizer, "optimizer"):
        if hasattr(optimizer, "sub_group_to_group_id"):
            # ZeRO-3 puts a partition into its group for the time of a step only.
            for index, partition in enumerate(optimizer.fp32_partitioned_groups_flat):
                yield inner.param_groups[optimizer.sub_group_to_group_id[index]], partition
            return
        optimizer = optimizer.optimizer
    for group in inner.param_groups:
        for parameter in group["params"]:
            yield group, parameter


def forget_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Zero the gradients that ZeRO-3 still holds of parameters which the next backward passes do not reach. They would
    count in the norm that gradients are clipped by."""
    for parameter in parameters:
        if hasattr(parameter, "ds_id") and parameter.requires_grad:
            from deepspeed.utils import safe_set_local_grad

            safe_set_local_grad(parameter, torch.zeros_like(parameter.ds_tensor))
