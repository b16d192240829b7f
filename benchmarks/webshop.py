"""How fast and how close to the original the embedded WebShop is. `python benchmarks/webshop.py`

With `--spacy PIPELINE` the agreement of the built-in noun rule with a tagger is measured as well.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from statistics import mean

from boost_trl.environments.webshop import WebShop, offline_trajectories, spacy_nouns
from boost_trl.environments.webshop.reward import type_reward


READY = (
    "import time; start = time.perf_counter()\n"
    "from boost_trl.environments.webshop import WebShop\n"
    "WebShop().reset(seed=0); print(time.perf_counter() - start)\n"
)


def start_up(folder):
    """Seconds until the first page is there, imports included, in a fresh process."""
    environment = {**os.environ, "BOOST_TRL_CACHE": folder}
    output = subprocess.run([sys.executable, "-c", READY], env=environment, capture_output=True, text=True, check=True)
    return float(output.stdout)


def play_randomly(shop, episodes):
    """Seconds per step of uniformly random play."""
    rng, steps = random.Random(0), 0
    start = time.perf_counter()
    for seed in range(episodes):
        shop.reset(seed=seed)
        over = False
        while not over:
            action = rng.choice(shop.admissible_actions()).replace("<words>", "easy clean")
            _, _, terminated, truncated, _ = shop.step(action)
            over, steps = terminated or truncated, steps + 1
    return (time.perf_counter() - start) / steps


def agreement(shop, pipeline, pairs):
    """Share of title pairs for which rule and tagger give one product type, for three ways to draw a pair."""
    nouns, rng = spacy_nouns(pipeline), random.Random(0)
    catalogue, agree = shop.catalogue, defaultdict(list)
    for _ in range(pairs):
        goal = rng.choice(catalogue.goals)
        department = [p for p in rng.sample(catalogue.products, 300) if p["category"] == goal["category"]]
        drawn = {
            "search hits": catalogue.by_asin[rng.choice(catalogue.index.search(goal["instruction_text"]))],
            "same department": rng.choice(department),
            "any product": rng.choice(catalogue.products),
        }
        for kind, product in drawn.items():
            agree[kind].append(type_reward(goal, product) == type_reward(goal, product, nouns))
    return {kind: mean(values) for kind, values in agree.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spacy", metavar="PIPELINE", help="spaCy pipeline to compare the noun rule with")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"first start          {start_up(folder):6.2f} s")
        print(f"start from the cache {start_up(folder):6.2f} s")
        os.environ["BOOST_TRL_CACHE"] = folder
        shop = WebShop()
    print(f"random play          {1e3 * play_randomly(shop, 300):6.2f} ms per step")
    start = time.perf_counter()
    rows = offline_trajectories(shop, 2000)
    print(f"2,000 trajectories   {time.perf_counter() - start:6.2f} s")
    by_policy = defaultdict(list)
    for policy, score in zip(rows["policy"], rows["score"]):
        by_policy[policy].append(score)
    for policy, scores in sorted(by_policy.items(), key=lambda item: -mean(item[1])):
        print(f"  {policy:17} mean score {mean(scores):.2f} over {len(scores)} episodes")
    if arguments.spacy:
        for kind, share in agreement(shop, arguments.spacy, 1000).items():
            print(f"product type as by spaCy, {kind:16} {100 * share:5.1f} %")


if __name__ == "__main__":
    main()
