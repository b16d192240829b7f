"""
What the theory of bilevel data selection promises, checked in seconds on softmax regression.

The world satisfies the paper's Assumption 1: the pool can be fitted perfectly, validation can be fitted perfectly, but
not both. Every pool row answers a question of its own, some as validation does (useful) and some in contradiction to
it (useless, Definition 3). Run

    python examples/selection_theory.py

and compare with `docs/selection_theory.md`. Left out: stochastic batches, except in Lemma 9, whose expectation is
enumerated over all rows.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch

from boost_trl.selection import PenaltySchedule, Selector
from boost_trl.tables import markdown_table


RHOS = (0.002, 0.01, 0.05, 0.1, 0.3, 0.5, 0.9, 1.0)
MAX_LOSS = 50.0  # what a row's loss is cut at, the B of Theorem 4


@dataclass
class World:
    """
    Args:
        pool, validation, evaluation (`tuple[torch.Tensor, torch.Tensor]`): float64 features (n, d) and labels (n,).
        useful (`torch.Tensor`): (N,) bool, the pool rows that agree with validation.
    """

    pool: tuple[torch.Tensor, torch.Tensor]
    validation: tuple[torch.Tensor, torch.Tensor]
    evaluation: tuple[torch.Tensor, torch.Tensor]
    useful: torch.Tensor
    num_classes: int


def make_world(
    num_questions: int = 24, bad_share: float = 0.5, num_classes: int = 6, shift: float = 0.02, seed: int = 0
) -> World:
    """Questions are orthonormal directions; validation asks each of them, evaluation asks them with `shift`ed
    noise."""
    generator = torch.Generator().manual_seed(seed)
    questions = torch.linalg.qr(torch.randn(num_questions, num_questions, generator=generator, dtype=torch.float64)).Q
    truth = torch.randint(num_classes, (num_questions,), generator=generator)
    useful = torch.arange(num_questions) >= round(bad_share * num_questions)
    other = (truth + torch.randint(1, num_classes, (num_questions,), generator=generator)) % num_classes
    asked = torch.arange(num_questions).repeat(20)
    noise = torch.randn(len(asked), num_questions, generator=generator, dtype=torch.float64)
    return World(
        pool=(questions, torch.where(useful, truth, other)),
        validation=(questions, truth),
        evaluation=(questions[asked] + shift * noise, truth[asked]),
        useful=useful,
        num_classes=num_classes,
    )


def row_losses(theta: torch.Tensor, data: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of every row, (..., n) for `theta` (..., d, V)."""
    features, labels = data
    log_probs = (features @ theta).log_softmax(dim=-1)
    return -log_probs.gather(-1, labels.expand(log_probs.shape[:-1])[..., None])[..., 0]


def train_mixing(world: World, rhos=RHOS, steps: int = 1500, learning_rate: float = 0.1) -> torch.Tensor:
    """θ (R, d, V): minimisers of ρ·pool + (1 − ρ)·validation, all ρ side by side."""
    rho = torch.tensor(rhos, dtype=torch.float64)
    theta = torch.zeros(len(rhos), world.pool[0].shape[1], world.num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = rho * row_losses(theta, world.pool).mean(-1) + (1 - rho) * row_losses(theta, world.validation).mean(-1)
        loss.sum().backward()
        optimizer.step()
    return theta.detach()


def train_selector(
    world: World,
    selector: Selector,
    steps: int = 1500,
    learning_rate: float = 0.1,
    rho_init: float = 0.1,
    rho_increment: float = 0.1,
    record: Callable[[int], None] = lambda step: None,
) -> torch.Tensor:
    """θ (d, V) after equation (22) and the selector's own update on the whole pool at every step. ρ grows over three
    "epochs", by default as in the paper: 0.1, 0.2, 0.3. `record(step)` is called after each step."""
    schedule = PenaltySchedule(num_epochs=3, rho_init=rho_init, rho_increment=rho_increment)
    ids = torch.arange(len(world.useful))
    theta = torch.zeros(world.pool[0].shape[1], world.num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=learning_rate)
    for step in range(steps):
        gamma = schedule.gamma(3 * step / steps)
        losses = row_losses(theta, world.pool)
        if selector.selector == "bmo_exact":
            selector.refresh(ids, losses)
        elif selector.updates_before_weights:
            selector.update(ids, losses, gamma)
        optimizer.zero_grad()
        (gamma * (selector.weights(ids) * losses).mean() + row_losses(theta, world.validation).mean()).backward()
        optimizer.step()
        if selector.selector == "bds":
            # Equation (23) at the new parameters.
            with torch.no_grad():
                selector.update(ids, row_losses(theta, world.pool), gamma)
        record(step)
    return theta.detach()


def expected_update(
    world: World, logits: torch.Tensor, gamma: float, selector_rate: float, learning_rate: float = 0.5, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    E[ω′] − ω of equation (24), by autograd through the full softmax and enumeration of every row that could be drawn,
    and the right-hand side of equation (26), Lemma 9. Both (N,).
    """
    num_rows = len(logits)
    sigma = logits.softmax(0)
    start = 0.1 * torch.randn(
        world.pool[0].shape[1],
        world.num_classes,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(seed),
    )
    after, mean_step = torch.empty(num_rows, dtype=torch.float64), torch.zeros(num_rows, dtype=torch.float64)
    for row in range(num_rows):
        theta = start.clone().requires_grad_()
        objective = (
            row_losses(theta, world.validation).mean() + gamma * sigma[row] * row_losses(theta, world.pool)[row]
        )
        (gradient,) = torch.autograd.grad(objective, theta)
        after[row] = row_losses(start - learning_rate * gradient, world.pool)[row]
        omega = logits.clone().requires_grad_()
        (step,) = torch.autograd.grad(omega.softmax(0)[row] * after[row], omega)
        mean_step -= selector_rate * gamma * step / num_rows
    lemma = selector_rate * gamma * sigma / num_rows * ((sigma * after).sum() - after)
    return mean_step, lemma


def implicit_weights(losses: torch.Tensor, tau: float = 1.0) -> torch.Tensor:
    """The weights (G,) that BMO's smoothed merit function −1/τ log Σ_g exp(−τ L_g) gives to losses (G,), by autograd: Lemma
    6."""
    losses = losses.clone().requires_grad_()
    (weights,) = torch.autograd.grad(-(-tau * losses).logsumexp(0) / tau, losses)
    return weights


def answers(num_answers: int = 12, seed: int = 0) -> dict[str, torch.Tensor]:
    """Losses of answers to one question, and what each answer then counts: `lambda` of equation (33), and importance
    ratios, scaled to sum to one as λ does, if the old policy found all `equally_likely`, and if it was an older state of the
    `same` policy."""
    generator = torch.Generator().manual_seed(seed)
    now = torch.randn(num_answers, dtype=torch.float64, generator=generator) - 2
    before = now + 0.3 * torch.randn(num_answers, dtype=torch.float64, generator=generator)
    ratios = {"equally_likely": now.exp(), "same": (now - before).exp()}
    return {"losses": -now, "lambda": now.softmax(0)} | {name: each / each.sum() for name, each in ratios.items()}


def mean_loss(theta: torch.Tensor, data: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Mean of the rows' losses, each cut at `MAX_LOSS`: (...,)."""
    return row_losses(theta, data).clamp(max=MAX_LOSS).mean(-1)


def make_selectors(num_rows: int) -> dict[str, Selector]:
    return {
        "BDS": Selector(num_rows, selector="bds", selector_learning_rate=0.07),
        "BMO (τ = 1)": Selector(num_rows, selector="bmo"),
        "exact BMO (τ = 1)": Selector(num_rows, selector="bmo_exact"),
    }


def study(world: World, steps: int = 1500) -> list[dict]:
    """One row per method: `method`, `validation`, `evaluation`, and, for selectors, the smallest weight of a `useful`
    row and the largest of a `useless` one."""
    rows = []
    mixed = train_mixing(world, steps=steps)
    for rho, theta in zip(RHOS, mixed, strict=True):
        rows.append(
            {
                "method": f"mixing ρ = {rho:g}",
                "validation": mean_loss(theta, world.validation).item(),
                "evaluation": mean_loss(theta, world.evaluation).item(),
            }
        )
    for name, selector in make_selectors(len(world.useful)).items():
        theta = train_selector(world, selector, steps=steps)
        weights = selector.weights()
        rows.append(
            {
                "method": name,
                "validation": mean_loss(theta, world.validation).item(),
                "evaluation": mean_loss(theta, world.evaluation).item(),
                "useful": weights[world.useful].min().item(),
                "useless": weights[~world.useful].max().item(),
            }
        )
    return rows


def format_table(rows: list[dict]) -> str:
    lines = [["method", "validation loss", "evaluation loss", "smallest weight, useful", "largest weight, useless"]]
    for row in rows:
        cells = [f"{row['validation']:.2g}", f"{row['evaluation']:.2g}"]
        cells += [f"{row[kind]:.2g}" if kind in row else "" for kind in ("useful", "useless")]
        lines.append([row["method"], *cells])
    return markdown_table(lines)


def main(args: argparse.Namespace) -> None:
    world = make_world(bad_share=args.bad_share, seed=args.seed)
    print(format_table(study(world, steps=args.steps)))
    logits = torch.randn(len(world.useful), dtype=torch.float64, generator=torch.Generator().manual_seed(args.seed))
    enumerated, lemma = expected_update(world, logits, gamma=0.25, selector_rate=1.0)
    print(
        f"\nLemma 9: largest difference {(enumerated - lemma).abs().max():.1e}, largest step {lemma.abs().max():.1e}."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--bad-share", type=float, default=0.5)
    main(parser.parse_args())
