"""Folding a linear map of the final hidden state into a causal LM's output head."""

import torch
from torch import nn
from transformers import PreTrainedModel


@torch.no_grad()
def fold_output_head(model: PreTrainedModel, weight: torch.Tensor, bias: torch.Tensor, *, add: bool) -> None:
    r"""Give `model` an untied output head of its own, so that its logits are \\( W h + b \\), up to a constant over tokens.

    Args:
        model (`PreTrainedModel`): A causal LM; changed in place. The head is rounded to its dtype.
        weight (`torch.Tensor` of shape `(V, d)`): W.
        bias (`torch.Tensor` of shape `(1,)` or `(V,)`): b. One number is a constant over tokens.
        add (`bool`): Add W h + b to the model's logits instead of replacing them.

    Raises:
        ValueError: if the architecture's head has no bias to hold a token bias, or its logits are not a multiple of what
            its head returns.
    """
    text_config = model.config.get_text_config()
    if not add and getattr(text_config, "final_logit_softcapping", None) is not None:
        # Gemma's cap would bend β Q. Logits that are replaced need none, and the architecture knows models without.
        text_config.final_logit_softcapping = None
    old = model.get_output_embeddings()
    if len(bias) > 1 and old.bias is None:
        raise ValueError(
            f"a token bias cannot fold: the output head of {type(model).__name__} has no bias, and a reloaded model "
            "would drop it silently; train with value_head_bias='scalar'"
        )
    old_weight, old_bias = old.weight, old.bias
    new = nn.Linear(weight.shape[1], weight.shape[0], bias=old_bias is not None, device="meta")
    new = new.to_empty(device=old_weight.device).to(old_weight.dtype).requires_grad_(False)
    model.set_output_embeddings(new)
    for config in {id(config): config for config in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    # Computed when the model was built, and what `tie_weights` goes by.
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)

    new.weight.copy_(old_weight)
    if old_bias is not None:
        new.bias.zero_()
    scale = _logit_scale(model)
    weight, bias = weight / scale, bias / scale
    new.weight.copy_(old_weight + weight if add else weight)
    if old_bias is not None:
        new.bias.copy_(old_bias + bias if add else bias.expand_as(new.bias))


def _logit_scale(model: PreTrainedModel) -> float:
    """The factor that the architecture puts between its output head and its logits, measured.

    A measurement holds for architectures whose configuration calls it something that nobody here has heard of.
    """
    head, device = model.get_output_embeddings(), model.get_input_embeddings().weight.device
    seen = []
    handle = head.register_forward_hook(lambda module, args, output: seen.append(output))
    probe = torch.arange(min(8, head.weight.shape[0]), device=device).unsqueeze(0)
    # One of them may be the pad token.
    inputs = {"input_ids": probe, "attention_mask": torch.ones_like(probe), "use_cache": False}
    try:
        model(**inputs)
        # Far into the range where a soft cap would bend the logits.
        head.weight.mul_(100 / seen.pop().abs().max().clamp(min=1e-6))
        logits = model(**inputs).logits.double()
    finally:
        handle.remove()
    raw = seen.pop().double()
    scale = ((logits * raw).sum() / raw.square().sum()).item()
    tolerance = 1e-4 if head.weight.dtype in (torch.float32, torch.float64) else 2e-2
    if not (logits - scale * raw).abs().max() <= tolerance * logits.abs().max():
        raise ValueError(
            f"the policy cannot fold into {type(model).__name__}: its logits are not a multiple of its output head's "
            "output (with a prior, Gemma's final_logit_softcapping bends them, for one); use ValuePolicy itself"
        )
    return scale
