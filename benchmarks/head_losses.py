"""The value losses over a large vocabulary: one forward and backward pass from hidden states to the gradients of states and
heads.

Three ways: the logits of all tokens at once with autograd, as LMRL-Gym and trlX compute them; the same for the states before action
tokens only; and `q_statistics` as the trainer calls it.
"""

from collections.abc import Callable
from functools import partial

import torch
from side_by_side import Row, in_turns, peak_megabytes

from boost_trl.losses import ilql_loss, mc_loss, q_statistics


EVERY_TOKEN, ACTION_ROWS, OURS = "full logits on every token", "full logits on action rows", "ours"
NUM_HEADS = {"mc": 1, "ilql": 2}
CQL_WEIGHT = 10.0
# SmolLM2-135M's width and vocabulary.
WIDTH, VOCABULARY = 576, 49152
# By what it is compared with: of CPU time and of memory.
AIMS = {EVERY_TOKEN: (0.45, 0.14), ACTION_ROWS: (0.80, 0.30)}


def inputs(algorithm: str, tokens: int) -> dict[str, torch.Tensor]:
    """Hidden states (S, d), heads (K, V, d), and which states precede an action, (T,): every second one."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randperm(tokens, generator=generator)[: tokens // 2].sort().values
    return {
        "hidden": torch.randn(tokens, WIDTH, generator=generator),
        "weight": torch.randn(NUM_HEADS[algorithm], VOCABULARY, WIDTH, generator=generator).mul_(0.04),
        "index": index,
        "actions": torch.randint(VOCABULARY, index.shape, generator=generator),
        "returns": torch.randn(index.shape, generator=generator),
    }


def all_logits(hidden, weight, actions) -> tuple[torch.Tensor, torch.Tensor]:
    logits = hidden @ weight.transpose(1, 2)
    return logits.gather(2, actions.expand(len(weight), -1).unsqueeze(2)).squeeze(2), logits.logsumexp(2)


def statistics(way: str, hidden, weight, index, actions) -> tuple[torch.Tensor, torch.Tensor]:
    """Q(s, a) and log-sum-exp of the action tokens, (K, T) each."""
    if way == EVERY_TOKEN:
        everywhere = torch.zeros(len(hidden), dtype=torch.long).index_copy_(0, index, actions)
        taken, logsumexp = all_logits(hidden, weight, everywhere)
        return taken[:, index], logsumexp[:, index]
    if way == ACTION_ROWS:
        return all_logits(hidden[index], weight, actions)
    share = torch.full((len(index),), CQL_WEIGHT / len(index))
    return q_statistics(hidden[index], weight, None, actions, logsumexp_grad=share)


def forward_and_backward(way: str, algorithm: str, hidden, weight, index, actions, returns) -> None:
    hidden, weight = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    taken, logsumexp = statistics(way, hidden, weight, index, actions)
    if algorithm == "mc":
        losses = mc_loss(taken[0], logsumexp[0], returns, cql_weight=CQL_WEIGHT)
    else:
        values, constants = torch.zeros_like(returns), {"discount": 0.99, "expectile": 0.7, "cql_weight": CQL_WEIGHT}
        losses = ilql_loss(taken, logsumexp, values, values, taken.detach(), returns, **constants)
    losses.mean().backward()


def prepared(way: str, algorithm: str, tokens: int) -> Callable[[], None]:
    """One pass, after a small one that leaves behind what every first pass of a process does."""
    forward_and_backward(way, algorithm, **inputs(algorithm, tokens=8))
    return partial(forward_and_backward, way, algorithm, **inputs(algorithm, tokens))


def measure(tokens: int = 2048, rounds: int = 2) -> list[Row]:
    rows = []
    for algorithm in NUM_HEADS:
        ways = {way: prepared(way, algorithm, tokens) for way in (*AIMS, OURS)}
        times = in_turns(ways, rounds, f"{algorithm.upper()} head losses", warm_up=False)
        peaks = {way: peak_megabytes(prepared, way, algorithm, tokens) for way in ways}
        for against, (time_aim, memory_aim) in AIMS.items():
            name = f"{algorithm.upper()} head losses, d {WIDTH}, V {VOCABULARY:,}"
            rows.append(times.row(f"{name}: time", OURS, against, time_aim, named=against, tokens=tokens))
            details = {"tokens": tokens, "megabytes": peaks[OURS], "megabytes_against": peaks[against]}
            ratio = peaks[OURS] / peaks[against]
            rows.append(Row(f"{name}: peak memory", against, ratio, memory_aim, details=details))
    return rows
