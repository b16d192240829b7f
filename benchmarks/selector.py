"""
What a `Selector` costs: seconds per update and bytes per row, for pools of up to ten million rows.

    OMP_NUM_THREADS=1 python benchmarks/selector.py

One step asks for the weights of a batch, updates it and asks for the logged statistics, as the trainer does. Refreshes of
`"rank"` and `"bmo_exact"` are timed apart and spread over the steps between two of them (1/20 of an epoch and one epoch). A
training step to compare with: one forward and backward pass of a small causal LM from scratch over the same batch. The
one timed here is far below a real one, so the shares printed are upper bounds.
"""

import argparse
import time

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from boost_trl.selection import Selector


KINDS = {
    "bds, sparse": {"selector": "bds"},
    "bmo": {"selector": "bmo"},
    "rank": {"selector": "rank"},
    "bmo_exact": {"selector": "bmo_exact"},
    "uniform": {"selector": "uniform"},
    "bds, sgd (dense)": {"selector": "bds", "selector_optimizer": "sgd"},
    "bds, adam (dense)": {"selector": "bds", "selector_optimizer": "adam"},
}


def training_step_seconds(batch_size: int, length: int, repeats: int = 3) -> float:
    """One forward and backward pass of a Llama with 10 million parameters."""
    config = LlamaConfig(
        vocab_size=4096, hidden_size=256, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=8
    )
    model = LlamaForCausalLM(config)
    tokens = torch.randint(4096, (batch_size, length))
    seconds = []
    for _ in range(repeats + 1):
        start = time.process_time()
        model(input_ids=tokens, labels=tokens).loss.backward()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds[1:]))


def selector_seconds(kind: str, num_rows: int, batch_size: int, steps: int) -> tuple[float, float, float]:
    """Seconds per step without and with refreshes, and bytes per row."""
    selector = Selector(num_rows, **KINDS[kind])
    epoch = max(1, num_rows // batch_size)
    selector.set_schedule(total_steps=3 * epoch, steps_per_epoch=epoch)
    draw = np.random.default_rng(0)
    batches = [draw.integers(0, num_rows, batch_size) for _ in range(steps + 1)]
    losses = draw.normal(1.5, 0.3, (steps + 1, batch_size))
    selector.update(batches[0], losses[0], 0.2)
    start = time.process_time()
    for ids, loss in zip(batches[1:], losses[1:], strict=True):
        selector.weights(ids)
        selector.update(ids, loss, 0.2)
        selector.effective_sample_size()
    seconds = (time.process_time() - start) / steps
    total = seconds
    if kind == "rank":
        ranked = Selector(num_rows, selector="rank", rank_refresh_steps=1)
        ranked.set_schedule(total_steps=3, steps_per_epoch=1)
        start = time.process_time()
        ranked.update(np.arange(num_rows), draw.normal(1.5, 0.3, num_rows), 0.2)
        total += (time.process_time() - start) / max(1, epoch / 20)
    elif kind == "bmo_exact":
        start = time.process_time()
        selector.refresh(np.arange(num_rows), draw.normal(1.5, 0.3, num_rows))
        total += (time.process_time() - start) / epoch
    size = sum(value.nbytes for value in selector.state_dict().values()) / num_rows
    return seconds, total, size


def main(args: argparse.Namespace) -> None:
    step = training_step_seconds(args.batch_size, args.length)
    print(
        f"Training step to compare with: {step:.3f} s (batch {args.batch_size} × {args.length} tokens, 10M parameters)\n"
    )
    print("| rows | selector | ms per update | with refreshes | share of the training step | bytes per row |")
    print("|---|---|---|---|---|---|")
    for num_rows in args.rows:
        for kind in KINDS:
            steps = max(3, int(3e7 / num_rows)) if "dense" in kind else 1000
            seconds, total, size = selector_seconds(kind, num_rows, args.batch_size, min(steps, 1000))
            print(
                f"| {num_rows:,} | {kind} | {1e3 * seconds:.3f} | {1e3 * total:.3f} | {total / step:.2%} | {size:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    main(parser.parse_args())
