"""
One figure for each theorem and lemma on `docs/selection_theory.md`, drawn from the numbers of `selection_theory.py`. Run

    python examples/selection_theory_figures.py --folder docs/images

for `theory_<theorem>.png`; half a minute on one core.
"""

import argparse
from pathlib import Path

import torch
from selection_theory import (
    RHOS,
    World,
    answers,
    expected_update,
    implicit_weights,
    make_selectors,
    make_world,
    mean_loss,
    row_losses,
    train_mixing,
    train_selector,
)

from boost_trl.pictures import figure


SIZE = (5.2, 3.8)
GOOD, BAD, LINE = "#0969da", "#d4761a", "#59636e"
BMO = "exact BMO (τ = 1)"
SHIFTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)


def both_solutions(world: World, steps: int) -> dict[str, torch.Tensor]:
    """θ of BDS and of exact BMO, by name."""
    selectors = make_selectors(len(world.useful))
    return {name: train_selector(world, selectors[name], steps=steps) for name in ("BDS", BMO)}


def weights_over_training(world: World, steps: int, every: int = 25) -> tuple[list[int], torch.Tensor]:
    """BDS's weights (T, N) after some of its steps, and their numbers."""
    selector, at, kept = make_selectors(len(world.useful))["BDS"], [], []

    def record(step: int) -> None:
        if step % every == 0:
            at.append(step)
            kept.append(selector.weights())

    train_selector(world, selector, steps=steps, record=record)
    return at, torch.stack(kept)


def evaluation_by_shift(world_of, steps: int, shifts=SHIFTS) -> dict[str, list[float]]:
    """Evaluation losses of BDS, exact BMO and mixing by how far evaluation is from validation; training does not see it."""
    thetas = both_solutions(world_of(0.0), steps)
    thetas |= {f"mixing ρ = {rho:g}": theta for rho, theta in zip(RHOS, train_mixing(world_of(0.0), steps=steps))}
    return {
        name: [mean_loss(theta, world_of(shift).evaluation).item() for shift in shifts]
        for name, theta in thetas.items()
    }


def draw_theorem_1(world: World, steps: int, path: Path) -> None:
    thetas = both_solutions(world, steps)
    losses = [row_losses(theta, world.pool) for theta in thetas.values()]
    with figure(path, figsize=SIZE) as (_, axes):
        for chosen, colour, name in ((world.useful, GOOD, "useful"), (~world.useful, BAD, "useless")):
            axes.scatter(losses[0][chosen], losses[1][chosen], color=colour, s=22, label=f"{name} row")
        axes.axline((1e-2, 1e-2), (1, 1), color=LINE, linewidth=0.8, linestyle=":")
        axes.set(xscale="log", yscale="log", xlabel="row's loss under BDS's solution", ylabel="under BMO's")
        axes.set_title("Theorem 1: both fit the same rows and give up the same", fontsize=10)
        axes.legend(fontsize=8)


def draw_theorem_2(world: World, steps: int, path: Path) -> None:
    at, weights = weights_over_training(world, steps)
    with figure(path, figsize=SIZE) as (_, axes):
        for chosen, colour, name in ((world.useful, GOOD, "useful"), (~world.useful, BAD, "useless")):
            axes.fill_between(at, *weights[:, chosen].aminmax(dim=1), color=colour, alpha=0.25, linewidth=0)
            axes.plot(
                at, weights[:, chosen].median(dim=1).values, color=colour, label=f"{name} rows: median and range"
            )
        axes.set(yscale="log", xlabel="step", ylabel="weight (1: equal)")
        axes.set_title("Theorem 2: the weight of useless rows falls to 0 (BDS)", fontsize=10)
        axes.legend(fontsize=8)


def draw_theorem_3(world: World, steps: int, path: Path) -> None:
    mixed = [mean_loss(theta, world.validation).item() for theta in train_mixing(world, steps=steps)]
    with figure(path, figsize=SIZE) as (_, axes):
        axes.plot(RHOS, mixed, marker="o", markersize=4, color=BAD, label="mixing")
        for (name, theta), style in zip(both_solutions(world, steps).items(), ("-", "--")):
            axes.axhline(mean_loss(theta, world.validation).item(), color=GOOD, linestyle=style, label=name)
        axes.set(xscale="log", yscale="log", xlabel="ρ: share of the pool in the loss", ylabel="validation loss")
        axes.set_title("Theorem 3: below mixing for every ρ", fontsize=10)
        axes.legend(fontsize=8)


def draw_theorem_4(world: World, steps: int, path: Path, seed: int = 0) -> None:
    losses = evaluation_by_shift(lambda shift: make_world(shift=shift, seed=seed), steps)
    shown = {
        "BDS": (GOOD, "-"),
        BMO: (GOOD, "--"),
        "mixing ρ = 0.002": (LINE, ":"),
        "mixing ρ = 0.1": (BAD, "-"),
        "mixing ρ = 0.5": (BAD, "--"),
    }
    with figure(path, figsize=SIZE) as (_, axes):
        for name, (colour, style) in shown.items():
            axes.plot(SHIFTS, losses[name], color=colour, linestyle=style, marker="o", markersize=3, label=name)
        axes.set(
            yscale="log", xlabel="noise in evaluation's features: how far from validation", ylabel="evaluation loss"
        )
        axes.set_title("Theorem 4: also on evaluation, as long as it is near", fontsize=10)
        axes.legend(fontsize=8)


def draw_lemma_6(world: World, steps: int, path: Path) -> None:
    found = answers()
    with figure(path, figsize=SIZE) as (_, axes):
        weights = implicit_weights(found["losses"])
        axes.axline((0, 0), (1, 1), color=LINE, linewidth=0.8, linestyle=":")
        for key, colour, name in (
            ("equally_likely", GOOD, "if the old policy found all answers equally likely"),
            ("same", BAD, "if the old policy was nearly the same policy"),
        ):
            axes.scatter(weights, found[key], color=colour, s=22, label=name)
        top = 1.1 * max(weights.max(), found["same"].max())
        axes.set(
            xlim=(0, top),
            ylim=(0, top),
            xlabel="BMO's implicit weight λ of an answer",
            ylabel="its importance ratio, summing to 1",
        )
        axes.set_title("Lemma 6: importance ratios as BMO's weights", fontsize=10)
        axes.legend(fontsize=8)


def draw_lemma_9(world: World, steps: int, path: Path) -> None:
    logits = torch.randn(len(world.useful), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    enumerated, lemma = expected_update(world, logits, gamma=0.25, selector_rate=1.0)
    with figure(path, figsize=SIZE) as (_, axes):
        axes.axline((0, 0), slope=1, color=LINE, linewidth=0.8, linestyle=":")
        for chosen, colour, name in ((world.useful, GOOD, "useful"), (~world.useful, BAD, "useless")):
            axes.scatter(lemma[chosen], enumerated[chosen], color=colour, s=22, label=f"{name} row")
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(xlabel="Lemma 9's formula for its logit's mean step", ylabel="mean over every row that may be drawn")
        axes.set_title("Lemma 9: the mean step, formula and enumeration", fontsize=10)
        axes.legend(fontsize=8)


FIGURES = {
    "theorem_1": draw_theorem_1,
    "theorem_2": draw_theorem_2,
    "theorem_3": draw_theorem_3,
    "theorem_4": draw_theorem_4,
    "lemma_6": draw_lemma_6,
    "lemma_9": draw_lemma_9,
}


def main(args: argparse.Namespace) -> None:
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        draw(make_world(), args.steps, args.folder / f"theory_{name}.png")
        print(args.folder / f"theory_{name}.png", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("outputs/selection_theory"))
    parser.add_argument("--steps", type=int, default=1500)
    main(parser.parse_args())
