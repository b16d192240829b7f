"""
What the distance of every synthetic row to its 10 nearest offline rows costs: `distance_to_nearest` beside other exact ways.

    OMP_NUM_THREADS=1 python benchmarks/neighbour_distance.py
    OMP_NUM_THREADS=2 python benchmarks/neighbour_distance.py --points 10000 --ways blocks

CPU seconds, side by side, the best of three for each way, and the largest memory that the process has needed so far.
scikit-learn and SciPy, which the package does not need, are measured where they are installed.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np

from boost_trl.analysis import distance_to_nearest
from boost_trl.tables import markdown_table


def one_row_at_a_time(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The obvious loop."""
    return np.array([np.partition(np.abs(reference - point).sum(axis=1), 9)[:10].mean() for point in points])


def with_scipy(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return np.partition(cdist(points, reference, "cityblock"), 9, axis=1)[:, :10].mean(axis=1)


def with_sklearn(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=10, metric="manhattan", algorithm="brute").fit(reference)
    return neighbours.kneighbors(points)[0].mean(axis=1)


WAYS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "blocks": distance_to_nearest,
    "loop": one_row_at_a_time,
    "scipy": with_scipy,
    "sklearn": with_sklearn,
}


def main(args: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    points, reference = (
        rng.standard_normal((rows, args.dimensions), dtype=np.float32) for rows in (args.points, args.reference)
    )
    lines, first = [["way", "CPU s", "wall s", "× blocks", "peak memory, MiB", "largest difference"]], None
    for name in args.ways:
        best = None
        try:
            for _ in range(args.repeats):
                cpu, wall = time.process_time(), time.perf_counter()
                found = WAYS[name](points, reference)
                spent = time.process_time() - cpu, time.perf_counter() - wall
                best = min(best or spent, spent)
        except ImportError:
            print(f"{name} is not installed")
            continue
        first = first or (best[0], found)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        difference = np.abs(found - first[1]).max() / first[1].mean()
        lines.append(
            [
                name,
                f"{best[0]:.1f}",
                f"{best[1]:.1f}",
                f"{best[0] / first[0]:.2f}",
                f"{memory:.0f}",
                f"{difference:.1e}",
            ]
        )
    print(f"{args.points:,} points, {args.reference:,} reference points, {args.dimensions} dimensions\n")
    print(markdown_table(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--reference", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    main(parser.parse_args())
