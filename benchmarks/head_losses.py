"""
What the value losses cost over a large vocabulary: CPU time and peak memory of one forward and backward pass from hidden
states to the gradients of states and heads.

    OMP_NUM_THREADS=1 python benchmarks/head_losses.py
    OMP_NUM_THREADS=1 python benchmarks/head_losses.py --json docs/data/head_losses.json

Four ways, side by side in one run, each repetition of one after the same of the others:

- every token: the logits of all tokens at once with autograd, as LMRL-Gym and trlX compute them, the loss on action tokens;
- action rows: the same for the states before action tokens only;
- two passes: `q_statistics`, which projects on the vocabulary in the forward and again in the backward pass;
- one pass: `q_statistics` with `logsumexp_grad`, what the trainer uses.

Ratios are to the first two. Memory is the largest resident size of a process that runs one way once, beyond that of one that only
makes the inputs.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from boost_trl.losses import ilql_loss, mc_loss, q_statistics
from boost_trl.tables import markdown_table


WAYS = ("every token", "action rows", "two passes", "one pass")
ALGORITHMS = {"mc": 1, "ilql": 2}
CQL_WEIGHT = 0.1


def inputs(args: argparse.Namespace, num_heads: int) -> dict[str, torch.Tensor]:
    """Hidden states (S, d), heads (K, V, d), and which states precede an action, (T,)."""
    generator = torch.Generator().manual_seed(0)
    num_actions = round(args.tokens * args.action_share)
    return {
        "hidden": torch.randn(args.tokens, args.width, generator=generator),
        "weight": torch.randn(num_heads, args.vocabulary, args.width, generator=generator).mul_(0.04),
        "index": torch.randperm(args.tokens, generator=generator)[:num_actions].sort().values,
        "actions": torch.randint(args.vocabulary, (num_actions,), generator=generator),
        "returns": torch.randn(num_actions, generator=generator),
    }


def all_logits(hidden, weight, actions) -> tuple[torch.Tensor, torch.Tensor]:
    logits = hidden @ weight.transpose(1, 2)
    return logits.gather(2, actions.expand(len(weight), -1).unsqueeze(2)).squeeze(2), logits.logsumexp(2)


def statistics(way: str, hidden, weight, index, actions) -> tuple[torch.Tensor, torch.Tensor]:
    """Q(s, a) and log-sum-exp of the action tokens, (K, T) each."""
    if way == "every token":
        everywhere = torch.zeros(len(hidden), dtype=torch.long).index_copy_(0, index, actions)
        taken, logsumexp = all_logits(hidden, weight, everywhere)
        return taken[:, index], logsumexp[:, index]
    if way == "action rows":
        return all_logits(hidden[index], weight, actions)
    share = torch.full((len(index),), CQL_WEIGHT / len(index)) if way == "one pass" else None
    return q_statistics(hidden[index], weight, None, actions, logsumexp_grad=share)


def forward_and_backward(way: str, algorithm: str, hidden, weight, index, actions, returns) -> None:
    hidden, weight = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    taken, logsumexp = statistics(way, hidden, weight, index, actions)
    if algorithm == "mc":
        losses = mc_loss(taken[0], logsumexp[0], returns, cql_weight=CQL_WEIGHT)
    else:
        values = torch.zeros_like(returns)
        losses = ilql_loss(
            taken,
            logsumexp,
            values,
            values,
            taken.detach(),
            returns,
            discount=0.99,
            expectile=0.7,
            cql_weight=CQL_WEIGHT,
        )
    losses.mean().backward()


def seconds(args: argparse.Namespace, algorithm: str, advance: Callable[[], object]) -> dict[str, float]:
    """Median CPU seconds of every way."""
    tensors = inputs(args, ALGORITHMS[algorithm])
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(args.repeats + 1):
        for way in WAYS:
            start = time.process_time()
            forward_and_backward(way, algorithm, **tensors)
            found[way].append(time.process_time() - start)
            advance()
    return {way: float(np.median(measured[1:])) for way, measured in found.items()}


def peak_megabytes(args: argparse.Namespace, algorithm: str, way: str) -> float:
    sizes = [
        str(value)
        for name in ("tokens", "action_share", "width", "vocabulary")
        for value in (f"--{name}", getattr(args, name))
    ]
    command = [sys.executable, __file__, *sizes, "--once", algorithm, way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def once(args: argparse.Namespace, algorithm: str, way: str) -> None:
    tensors = inputs(args, ALGORITHMS[algorithm])
    if way != "nothing":
        forward_and_backward(way, algorithm, **tensors)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(args: argparse.Namespace) -> list[dict]:
    rows = []
    total = len(ALGORITHMS) * (len(WAYS) * (args.repeats + 2) + 1)
    with tqdm(total=total, desc="head losses", unit="pass") as bar:
        for algorithm in ALGORITHMS:
            peaks = {}
            for way in ("nothing", *WAYS):
                peaks[way] = peak_megabytes(args, algorithm, way)
                bar.update()
            took = seconds(args, algorithm, bar.update)
            for way in WAYS:
                rows.append(
                    {
                        "algorithm": algorithm,
                        "way": way,
                        "seconds": took[way],
                        "megabytes": peaks[way] - peaks["nothing"],
                    }
                )
    return rows


def table(rows: list[dict]) -> str:
    lines = [["algorithm", "way", "CPU s", "× every token", "× action rows", "MB", "× every token", "× action rows"]]
    for row in rows:
        of = {other["way"]: other for other in rows if other["algorithm"] == row["algorithm"]}
        cells = [
            cell
            for unit, form in (("seconds", "{:.2f}"), ("megabytes", "{:.0f}"))
            for cell in (form.format(row[unit]), *(f"{row[unit] / of[way][unit]:.2f}" for way in WAYS[:2]))
        ]
        lines.append([row["algorithm"].upper(), row["way"], *cells])
    return markdown_table(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of a batch")
    parser.add_argument("--action_share", type=float, default=0.5, help="share of them that are actions")
    parser.add_argument("--width", type=int, default=576, help="of the hidden states; SmolLM2-135M's by default")
    parser.add_argument(
        "--vocabulary", type=int, default=49152, help="size of the vocabulary; SmolLM2-135M's by default"
    )
    parser.add_argument("--repeats", type=int, default=5, help="repetitions, of which the median is taken")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--once", nargs=2, metavar=("ALGORITHM", "WAY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        return once(args, *args.once)
    rows = measure(args)
    print(table(rows))
    if args.json:
        shown = {name: value for name, value in vars(args).items() if name not in ("json", "once")}
        Path(args.json).write_text(json.dumps({"settings": shown, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
