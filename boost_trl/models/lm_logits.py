"""Logits of a language model from its final hidden state: what a linear head has to match."""

from dataclasses import dataclass

import torch
from torch import nn

from .hidden_states import base_causal_lm


_NEWTON_STEPS = 20


@dataclass
class LMLogits:
    """A language model at some positions.

    Args:
        hidden (`torch.Tensor` of shape `(T, d)`): final hidden states.
        head (`torch.Tensor` of shape `(T, V)`): what the output head makes of them, its bias included; float32.
        log_probs (`torch.Tensor` of shape `(T, V)`): the model's own, after all that it does to logits; float32.
    """

    hidden: torch.Tensor
    head: torch.Tensor
    log_probs: torch.Tensor

    def divergence(self, logits: torch.Tensor) -> torch.Tensor:
        """The mean of KL(LM ‖ softmax(logits)) over positions, in nats, for logits (T, V)."""
        return (self.log_probs.exp() * (self.log_probs - logits.float().log_softmax(dim=-1))).sum(dim=-1).mean()

    def best_factor(self) -> float:
        """The c for which softmax(c · head) is nearest to the language model in KL: the architecture's factor where it has
        one (Granite, Cohere), 1 for most, and a compromise where logits are bent (Gemma's soft cap)."""
        # Not every accelerator knows float64.
        log_probs, head = self.log_probs.cpu().double(), self.head.cpu().double()
        head = head - head.mean(dim=-1, keepdim=True)
        target = (log_probs.exp() * head).sum(dim=-1)
        # Least squares finds a factor exactly; Newton's method for this convex problem goes on from there.
        logits = log_probs - log_probs.mean(dim=-1, keepdim=True)
        factor = ((logits * head).sum() / head.square().sum().clamp(min=1e-30)).item()

        def loss(c: float) -> float:
            return ((c * head).logsumexp(dim=-1) - c * target).mean().item()

        best = loss(factor)
        for _ in range(_NEWTON_STEPS):
            q = (factor * head).softmax(dim=-1)
            mean = (q * head).sum(dim=-1)
            slope = (mean - target).mean().item()
            curvature = ((q * head.square()).sum(dim=-1) - mean.square()).mean().item()
            step = slope / max(curvature, 1e-12)
            while abs(step) > 1e-7 * abs(factor) and loss(factor - step) >= best:
                step /= 2
            if abs(step) <= 1e-7 * abs(factor):
                break
            factor -= step
            best = loss(factor)
        # Most architectures have no factor, and what is off by so little is rounding.
        return 1.0 if abs(factor - 1) < 1e-3 else factor


@torch.no_grad()
def lm_logits(model: nn.Module, input_ids: torch.Tensor, positions: torch.Tensor) -> LMLogits:
    """Run `model`, adapters included, on one sequence.

    Args:
        model (`nn.Module`): a causal LM or a `PeftModel` around one.
        input_ids (`torch.LongTensor` of shape `(S,)`): without padding.
        positions (`torch.LongTensor` of shape `(T,)`): where its logits are wanted.
    """
    lm = base_causal_lm(model)
    states = []
    handle = lm.base_model.register_forward_hook(lambda module, args, output: states.append(output.last_hidden_state))
    device = lm.get_input_embeddings().weight.device
    try:
        input_ids = input_ids.to(device).unsqueeze(0)
        # A token that ends a turn may be the one that pads.
        mask = torch.ones_like(input_ids)
        output = lm(input_ids=input_ids, attention_mask=mask, logits_to_keep=positions.to(device), use_cache=False)
    finally:
        handle.remove()
    hidden = states[0][0, positions.to(states[0].device)]
    head = lm.get_output_embeddings()
    bias = None if head.bias is None else head.bias.float()
    raw = nn.functional.linear(hidden.float(), head.weight.float(), bias)
    return LMLogits(hidden, raw, output.logits[0].float().log_softmax(dim=-1))


def joined(parts: list[LMLogits]) -> LMLogits:
    """All positions of several sequences."""
    return LMLogits(*(torch.cat([getattr(part, name) for part in parts]) for name in ("hidden", "head", "log_probs")))
