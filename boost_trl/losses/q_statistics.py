"""Q(s, a) and logsumexp Q(s, ·) of linear Q heads without ever holding the tokens' whole vocabulary logits.

A block of tokens by a block of the vocabulary is projected at a time, in the forward pass and again in the backward
pass, which accumulates the gradients of states, matrix and bias directly. What autograd keeps is the states and two
numbers per token.

The value losses are linear in the log-sum-exp, so what it counts for in the objective is known before the forward pass. Told
that, the forward pass takes its gradient while a block's logits are at hand, and nothing is projected again.
"""

from collections.abc import Iterator

import torch
from torch.autograd.function import once_differentiable

from .precision import at_least_float32


_MAX_TOKENS = 4096


def q_statistics(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    actions: torch.Tensor,
    *,
    logsumexp_grad: torch.Tensor | None = None,
    chunk_size: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Value of the action taken and log-sum-exp over all actions, for \\( Q(s, \cdot) = W h + b \\).

    Computed in the promoted dtype of `hidden` and `weight`, and at least in float32, under autocast too.

    Args:
        hidden (`torch.Tensor` of shape `(T, d)`): States of the action tokens (the hidden state of the token before
            each), any floating dtype.
        weight (`torch.Tensor` of shape `(V, d)` or `(K, V, d)`): One Q head, or K heads over the same states.
        bias (`torch.Tensor` of shape `(1,)` or `(V,)`, with K heads `(K, 1)` or `(K, V)`, *optional*): One number per
            head, or one per token of the vocabulary. May be `None`.
        actions (`torch.Tensor` of shape `(T,)`): Token ids of the actions taken.
        logsumexp_grad (`torch.Tensor` of shape `(T,)`, *optional*): The gradient of the objective with respect to
            `q_logsumexp`, the same for all heads, up to a factor that all tokens share (a loss scale, the number of
            processes). With it the gradients are taken in the forward pass, at three quarters of the cost; `backward`
            can then run once only, and raises `RuntimeError` if the gradient that arrives is another.
        chunk_size (`int`, *optional*): Most logits to hold at a time. By default it is chosen from the sizes and the
            device: at most 2^20 on a CPU (2^23 with `logsumexp_grad`, whose blocks hold the whole vocabulary) and 2^26
            elsewhere, and never more than a quarter of T · V once that exceeds 2^18.

    Returns:
        `tuple` of two `torch.Tensor` of shape `(T,)`, with K heads `(K, T)`: `q_taken` and `q_logsumexp`, float32
        (float64 if `hidden` or `weight` is), differentiable once with respect to `hidden`, `weight` and `bias`.

    Raises:
        ValueError: if a shape is not as above or, on a CPU, an action is not a token id of the vocabulary (a GPU checks
            its indices itself).
    """
    _check(hidden, weight, bias, actions)
    if logsumexp_grad is not None and logsumexp_grad.shape != actions.shape:
        raise ValueError(
            f"`logsumexp_grad` must hold one number per token, {tuple(actions.shape)}, got {tuple(logsumexp_grad.shape)}"
        )
    single = weight.dim() == 2
    if single:
        weight = weight.unsqueeze(0)
        bias = None if bias is None else bias.unsqueeze(0)
    # A scalar bias shifts both statistics alike, so it needs no part in the loops.
    scalar_bias = bias if bias is not None and bias.shape[1] == 1 else None
    token_bias = bias if scalar_bias is None else None
    learns = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (hidden, weight, token_bias)
    )
    ahead = logsumexp_grad.detach() if logsumexp_grad is not None and learns else None
    if chunk_size is None:
        chunk_size = _default_chunk_size(hidden.device, len(hidden) * weight.shape[1], ahead is not None)
    if ahead is not None:
        q_taken, q_logsumexp = _QStatisticsAhead.apply(hidden, weight, token_bias, actions, ahead, chunk_size)
    else:
        q_taken, q_logsumexp = _QStatistics.apply(hidden, weight, token_bias, actions, chunk_size)
    if scalar_bias is not None:
        q_taken, q_logsumexp = q_taken + scalar_bias, q_logsumexp + scalar_bias
    return (q_taken[0], q_logsumexp[0]) if single else (q_taken, q_logsumexp)


def q_values_of(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, actions: torch.Tensor
) -> torch.Tensor:
    r"""Q(s, a) of the actions alone, \\( W_a \cdot h + b_a \\): a row gather, all that target heads need.

    Args, dtype and `ValueError` are those of [`q_statistics`].

    Returns:
        `torch.Tensor` of shape `(T,)`, with K heads `(K, T)`, differentiable.
    """
    _check(hidden, weight, bias, actions)
    taken = (at_least_float32(hidden) * weight[..., actions, :]).sum(dim=-1)
    if bias is None:
        return taken
    return taken + (bias if bias.shape[-1] == 1 else bias[..., actions])


class _QStatistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, actions, chunk_size):
        dtype = _compute_dtype(hidden, weight)
        states = hidden.to(dtype)
        q_taken = states.new_zeros(len(weight), len(states))
        q_logsumexp = states.new_full(q_taken.shape, -torch.inf)
        with torch.autocast(hidden.device.type, enabled=False):
            for head, tokens, words in _blocks(weight, len(states), chunk_size):
                logits = _logits(states[tokens], weight[head, words], None if bias is None else bias[head, words])
                column, inside = _columns(actions[tokens], words)
                taken = logits.gather(1, column).squeeze(1)
                q_taken[head, tokens] += torch.where(inside, taken, 0)
                # `logsumexp` would hold a second block.
                largest = logits.amax(dim=1, keepdim=True)
                block_logsumexp = logits.sub_(largest).exp_().sum(dim=1).log_().add_(largest.squeeze(1))
                q_logsumexp[head, tokens] = torch.logaddexp(q_logsumexp[head, tokens], block_logsumexp)
        ctx.save_for_backward(hidden, weight, bias, actions, q_logsumexp)
        ctx.chunk_size = chunk_size
        return q_taken, q_logsumexp

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_taken, grad_logsumexp):
        hidden, weight, bias, actions, q_logsumexp = ctx.saved_tensors
        states = hidden.to(_compute_dtype(hidden, weight))
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(states) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=states.dtype) if need_weight else None
        grad_bias = torch.zeros_like(bias, dtype=states.dtype) if need_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for head, tokens, words in _blocks(weight, len(states), ctx.chunk_size):
                rows = weight[head, words].to(states.dtype)
                logits = _logits(states[tokens], rows, None if bias is None else bias[head, words])
                # dQ(s, ·) = d logsumexp · softmax Q(s, ·) + d taken at the action
                grad = logits.sub_(q_logsumexp[head, tokens].unsqueeze(1)).exp_()
                grad.mul_(grad_logsumexp[head, tokens].unsqueeze(1))
                column, inside = _columns(actions[tokens], words)
                grad.scatter_add_(1, column, torch.where(inside, grad_taken[head, tokens], 0).unsqueeze(1))
                if need_hidden:
                    grad_hidden[tokens].addmm_(grad, rows)
                if need_weight:
                    grad_weight[head, words].addmm_(grad.t(), states[tokens])
                if need_bias:
                    grad_bias[head, words] += grad.sum(dim=0)
        return (
            grad_hidden.to(hidden.dtype) if need_hidden else None,
            grad_weight.to(weight.dtype) if need_weight else None,
            grad_bias.to(bias.dtype) if need_bias else None,
            None,
            None,
        )


class _QStatisticsAhead(torch.autograd.Function):
    """The same with the gradient of the log-sum-exp taken in the forward pass, block by block. That of the actions' values,
    which the objective need not be linear in, touches one row of the matrix per token and is left to the backward pass."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, actions, logsumexp_grad, chunk_size):
        dtype = _compute_dtype(hidden, weight)
        states, share = hidden.to(dtype), logsumexp_grad.to(dtype)
        q_taken = states.new_empty(len(weight), len(states))
        q_logsumexp = torch.empty_like(q_taken)
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(states) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=dtype) if need_weight else None
        grad_bias = torch.zeros_like(bias, dtype=dtype) if need_bias else None
        tokens_step = max(1, chunk_size // weight.shape[1])
        with torch.autocast(hidden.device.type, enabled=False):
            for head, rows in enumerate(weight):
                rows, bias_row = rows.to(dtype), None if bias is None else bias[head]
                for first in range(0, len(states), tokens_step):
                    tokens = slice(first, first + tokens_step)
                    logits = _logits(states[tokens], rows, bias_row)
                    q_taken[head, tokens] = logits.gather(1, actions[tokens].unsqueeze(1)).squeeze(1)
                    largest = logits.amax(dim=1, keepdim=True)
                    exponentials = logits.sub_(largest).exp_()
                    total = exponentials.sum(dim=1)
                    q_logsumexp[head, tokens] = total.log() + largest.squeeze(1)
                    # d logsumexp Q(s, ·) = softmax Q(s, ·); its factors go to what is small.
                    factor = share[tokens] / total
                    if need_hidden:
                        grad_hidden[tokens] += (exponentials @ rows).mul_(factor.unsqueeze(1))
                    if need_weight:
                        grad_weight[head].addmm_(exponentials.t(), states[tokens] * factor.unsqueeze(1))
                    if need_bias:
                        grad_bias[head] += factor @ exponentials
            rows_taken = weight[:, actions].to(dtype) if need_hidden else None
        ctx.save_for_backward(hidden, actions, share, rows_taken)
        ctx.gradients = grad_hidden, grad_weight, grad_bias
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        return q_taken, q_logsumexp

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_taken, grad_logsumexp):
        hidden, actions, share, rows_taken = ctx.saved_tensors
        if ctx.gradients is None:
            raise RuntimeError("the gradients that `logsumexp_grad` gave are used up: run the forward pass again")
        gradients, ctx.gradients = ctx.gradients, None
        grad_hidden, grad_weight, grad_bias = gradients
        factor = _common_factor(grad_logsumexp, share)
        for gradient in gradients:
            if gradient is not None:
                gradient.mul_(factor)
        if grad_hidden is not None:
            grad_hidden += torch.einsum("kt,ktd->td", grad_taken, rows_taken)
        for head, of_head in enumerate(grad_taken):
            if grad_weight is not None:
                grad_weight[head].index_add_(0, actions, of_head.unsqueeze(1) * hidden.to(share.dtype))
            if grad_bias is not None:
                grad_bias[head].index_add_(0, actions, of_head)
        typed = (None if g is None else g.to(dtype) for g, dtype in zip(gradients, ctx.dtypes))
        return (*typed, None, None, None)


def _common_factor(grad: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """s for which `grad`, (K, T), is s · `share`, (T,), in every row.

    Raises:
        RuntimeError: if there is none; on a GPU as an assertion of the device, which nothing waits for.
    """
    norm = share.square().sum()
    factor = torch.where(norm > 0, (grad[0] * share).sum() / norm, 0)
    if grad.numel():
        wrong = (grad - factor * share).abs().amax() > 1e-3 * (factor * share).abs().amax()
        # What is not finite passes: whoever looks at the losses knows which row it comes from.
        torch._assert_async(
            ~wrong,
            "`logsumexp_grad` is not the gradient of the objective with respect to the log-sum-exp, up to a factor: leave it "
            "out, or give what each token's log-sum-exp counts for",
        )
    return factor


def _check(hidden, weight, bias, actions):
    shapes = f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}, actions {tuple(actions.shape)}"
    if hidden.dim() != 2 or weight.dim() not in (2, 3) or weight.shape[-1] != hidden.shape[1]:
        raise ValueError(f"`hidden` must have shape (T, d) and weight (V, d) or (K, V, d), got {shapes}")
    if actions.shape != hidden.shape[:1] or actions.is_floating_point():
        raise ValueError(f"`actions` must hold one token id per state, shape (T,), got {shapes} of {actions.dtype}")
    if bias is not None and tuple(bias.shape) not in ((*weight.shape[:-2], 1), tuple(weight.shape[:-1])):
        raise ValueError(
            "`bias` must be None, one number per head, (1,) or (K, 1), or one per token, (V,) or (K, V), got "
            f"{tuple(bias.shape)} for weight {tuple(weight.shape)}"
        )
    if actions.device.type != "cpu" or len(actions) == 0:
        return  # Asking a device would make it wait; it checks indices by itself.
    lowest, highest = torch.stack(actions.aminmax()).tolist()
    if not 0 <= lowest <= highest < weight.shape[-2]:
        raise ValueError(f"`actions` must be token ids from 0 to {weight.shape[-2] - 1}, got {lowest} to {highest}")


def _default_chunk_size(device: torch.device, num_logits: int, ahead: bool = False) -> int:
    largest = (2**23 if ahead else 2**20) if device.type == "cpu" else 2**26
    return min(largest, max(2**18, num_logits // 4))


def _compute_dtype(hidden: torch.Tensor, weight: torch.Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)


def _blocks(weight: torch.Tensor, num_tokens: int, chunk_size: int) -> Iterator[tuple[int, slice, slice]]:
    """(head, slice of tokens, slice of the vocabulary), at most `chunk_size` logits each.

    Blocks are cut along the vocabulary first: each row of the weight's gradient is then written once per 4096 tokens
    instead of once per handful of tokens.
    """
    vocab_size = weight.shape[1]
    tokens_step = max(1, min(num_tokens, _MAX_TOKENS, chunk_size))
    words_step = max(1, min(vocab_size, chunk_size // tokens_step))
    for head in range(len(weight)):
        for first_word in range(0, vocab_size, words_step):
            for first_token in range(0, num_tokens, tokens_step):
                words = slice(first_word, min(first_word + words_step, vocab_size))
                yield head, slice(first_token, first_token + tokens_step), words


def _logits(states: torch.Tensor, rows: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    rows = rows.to(states.dtype)
    return states @ rows.t() if bias is None else torch.addmm(bias.to(states.dtype), states, rows.t())


def _columns(actions: torch.Tensor, words: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Position of each action in a block of the vocabulary: column (tokens, 1), and whether it is inside at all."""
    last = words.stop - words.start - 1
    offset = actions - words.start
    return offset.clamp(0, last).unsqueeze(1), (offset >= 0) & (offset <= last)
