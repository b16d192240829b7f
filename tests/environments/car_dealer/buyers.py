"""Buyers whose hidden numbers are known, for tests worked by hand."""

from boost_trl.environments.base import Task


def small_task(brand, wanted, floor, reservation, patience, budget=100):
    data = {
        "brand": brand,
        "model": "sedan",
        "personality": "sarcastic",  # neutral: no patience, no drift
        "wanted": wanted,
        "equipment": ["mileage"],
        "sticker": 100,
        "floor": floor,
        "budget": budget,
        "reservation": reservation,
        "patience": patience,
    }
    return Task("hand", brand, data=data)


def play(env, task, actions):
    env.reset(seed=0, task=task)
    return [env.step(action) for action in actions]


HONDA = small_task("Honda", ["cargo"], floor=86, reservation=80, patience=5)


BMW = small_task("BMW", ["leather"], floor=90, reservation=84, patience=4)


AUDI = small_task("Audi", ["leather", "audio"], floor=88, reservation=82, patience=3)
