"""The dialogue files of LMRL-Gym ([Abdulhai et al.](https://arxiv.org/abs/2311.18232)) as trajectories."""

import json
import os
from collections.abc import Callable
from typing import Any, Literal

from datasets import Dataset


MAX_QUESTIONS = 20
MAX_UTTERANCES = 50

# The game's objects by category (LMRL-Gym's word list); a conversation names only the object.
_CATEGORIES = """
Animals: bear, cat, cow, dog, elephant, horse, lion, rabbit, sheep, tiger
Art: canvas, eraser, glue, marker, paintbrush, painting, sculpture
Clothes: belt, boots, dress, hat, jacket, pants, scarf, shirt, shoes, skirt, socks
Electronics: blender, camera, computer, computer keyboard, headphone, microwave, monitor, refrigerator, smartphone
Electronics: television
Fruits: apple, banana, cantaloupe, grape, mango, orange, peach, pineapple, strawberry, watermelon
Furniture: bed, bookcase, chair, couch, desk, dresser, mattress, nightstand, pillow, table
Garden Supplies: gloves, lawn mower, rake, shovel, watering can
Jewelry: bracelet, brooch, earring, hairclip, locket, necklace, pendant, ring, watch
Kitchen Tools: bowl, chopstick, cooking pot, cup, fork, knife, pan, plate, spoon, whisk
Musical Instruments: clarinet, drum, flute, guitar, harp, piano, saxophone, trombone, trumpet, violin
Nature: bush, cactus, forest, lake, meteorite, mountain, ocean, river, rock, sea, tree
Office Supplies: battery, calculator, calendar, diary, key, paper, pen, pencil, printer, scissors, sharpie, stapler
Office Supplies: toothbrush, toothpaste
Sports: baseball, baseball bat, basketball, football, golf ball, helmet, soccer ball, tennis ball, tennis racket
Sports: volleyball
Tools: drill, hammer, pliers, saw, screwdriver, wrench
Toys: doll, kite, lego, puzzle, stuffed animal
Vegetables: broccoli, carrot, celery, corn, cucumber, onion, peas, potato, spinach, tomato
Vehicles: airplane, boat, bus, car, helicopter, motorcycle, scooter, ship, train, truck
"""
_CATEGORY_OF = {
    name: category
    for category, names in (line.split(": ") for line in _CATEGORIES.strip().splitlines())
    for name in names.split(", ")
}


def load_lmrl_gym(
    path: str | os.PathLike,
    environment: Literal["twenty_questions", "car_dealer"] = "twenty_questions",
    *,
    reward: Literal["step_cost", "score"] = "step_cost",
) -> Dataset:
    """Read a JSON file of LMRL-Gym's Twenty Questions or Car Dealer task.

    Twenty Questions: a list of `{"lines": ["Is it red? No.", …], "correct": bool, "word": [name, variant, …]}`; the
    category is the object's. A conversation of fewer than 20 questions that found nothing was cut, not ended.

    Car Dealer: lists by personality, or one list, of `{"buyer_info": {…}, "lines": [{"role": "Seller" | "Buyer",
    "text": …}, …], "output": {"car_bought": bool, …}}`; the agent is the seller, the category is the buyer's preferred
    brand. Consecutive lines of one role are one turn; a conversation without `output` was cut.

    Args:
        path (`str`): the JSON file.
        environment (`str`, *optional*, defaults to `"twenty_questions"`): which of the two it holds.
        reward (`str`, *optional*, defaults to `"step_cost"`): as the environments of boost_trl count, not as LMRL-Gym
            does. `"step_cost"` is −1 per action and 0 for the one that completes the task; a failure that ends early
            (a buyer who walks away) also pays all remaining steps. `"score"` is 0 until the task is completed, then
            the questions or utterances that remain (of 20 and 50).

    Returns:
        `datasets.Dataset` in the trajectory format, with `score` and `success`.

    Raises:
        ValueError: naming file, row and key of the first bad conversation.
    """
    readers: dict[str, Callable] = {"twenty_questions": _twenty_questions, "car_dealer": _car_dealer}
    if environment not in readers:
        raise ValueError(f"`environment` must be one of {', '.join(readers)}, got {environment!r}")
    if reward not in ("step_cost", "score"):
        raise ValueError(f"`reward` must be 'step_cost' or 'score', got {reward!r}")
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    groups = content if isinstance(content, dict) and environment == "car_dealer" else {None: content}
    rows = []
    for group, conversations in groups.items():
        where = f"{path}" if group is None else f"{path}, group {group!r}"
        if not isinstance(conversations, list):
            raise ValueError(f"{where}: must be a JSON list of conversations")
        for index, conversation in enumerate(conversations):
            rows.append(readers[environment](_Conversation(conversation, f"{where}, row {index}"), reward))
    if not rows:
        raise ValueError(f"{path} holds no conversations")
    return Dataset.from_list(rows)


class _Conversation:
    """A JSON object whose keys are checked as they are read."""

    def __init__(self, content: Any, where: str):
        self.where = where
        if not isinstance(content, dict):
            raise ValueError(f"{where}: is not an object with keys, but {content!r:.80}")
        self.content = content

    def get(self, key: str, kind: type | tuple[type, ...], what: str) -> Any:
        if key not in self.content:
            self.fail(key, f"is missing; it must be {what}")
        value = self.content[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.fail(key, f"is {value!r:.80}; it must be {what}")
        return value

    def fail(self, key: str, problem: str):
        raise ValueError(f"{self.where}, key `{key}`: {problem}")


def _twenty_questions(row: _Conversation, reward: str) -> dict[str, Any]:
    lines = row.get("lines", list, "a list of texts such as 'Is it red? No.'")
    success = row.get("correct", bool, "true or false")
    variants = row.get("word", list, "a list of names of the object")
    if not 1 <= len(lines) <= MAX_QUESTIONS:
        row.fail("lines", f"has {len(lines)} entries; a game has 1 to {MAX_QUESTIONS}")
    names = [str(name).lower() for name in variants]
    category = next((_CATEGORY_OF[name] for name in names if name in _CATEGORY_OF), None)
    if category is None:
        row.fail("word", f"{variants!r:.80} is none of the game's objects, so its category is unknown")
    messages = [{"role": "user", "content": "Questions:"}]
    for number, line in enumerate(lines):
        question, mark, answer = line.rpartition("? ") if isinstance(line, str) else ("", "", "")
        if not mark:
            row.fail("lines", f"entry {number} is {line!r:.80}; it must be a question and an answer, 'Is it red? No.'")
        messages.append({"role": "assistant", "content": question + "?"})
        messages.append({"role": "user", "content": answer.strip()})
    terminated = success or len(lines) == MAX_QUESTIONS
    return _row(
        messages,
        success=success,
        terminated=terminated,
        score=MAX_QUESTIONS - len(lines) if success else 0,
        max_steps=MAX_QUESTIONS,
        reward=reward,
        category=category,
        task_id=names[0],
        data={"word": variants},
    )


def _car_dealer(row: _Conversation, reward: str) -> dict[str, Any]:
    buyer = row.get("buyer_info", dict, "an object with the buyer's preferences")
    lines = row.get("lines", list, "a list of {role, text}")
    brand = buyer.get("preferred_brands")
    if not isinstance(brand, str) or not brand.strip():
        row.fail("buyer_info", f"has `preferred_brands` {brand!r}; it must name a brand, such as 'a Tesla'")
    brand = brand.removeprefix("a ").removeprefix("an ").strip()
    messages = []
    for number, line in enumerate(lines):
        if not isinstance(line, dict) or not isinstance(line.get("text"), str):
            row.fail("lines", f"entry {number} is {line!r:.80}; it must be {{'role': …, 'text': …}}")
        if line.get("role") not in ("Seller", "Buyer"):
            row.fail("lines", f"entry {number} has the role {line.get('role')!r}; it must be 'Seller' or 'Buyer'")
        role = "assistant" if line["role"] == "Seller" else "user"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += " " + line["text"].strip()
        else:
            messages.append({"role": role, "content": line["text"].strip()})
    steps = sum(message["role"] == "assistant" for message in messages)
    if not steps:
        row.fail("lines", "has no line of the Seller, who is the agent")
    if messages[0]["role"] == "assistant":
        messages.insert(0, {"role": "user", "content": "Start"})
    terminated = row.content.get("output") is not None
    success = False
    if terminated:
        output = row.get("output", dict, "an object with the outcome, or absent")
        success = _Conversation(output, f"{row.where}, key `output`").get("car_bought", bool, "true or false")
    return _row(
        messages,
        success=success,
        terminated=terminated,
        # The assent is an utterance too, so each of the seller's turns uses two.
        score=max(MAX_UTTERANCES - 2 * steps, 0) if success else 0,
        max_steps=MAX_UTTERANCES // 2,
        reward=reward,
        category=brand,
        task_id=f"{brand.lower()}-{buyer.get('personality', '')}-{buyer.get('budget', '')}",
        data={"buyer_info": buyer, "output": row.content.get("output")},
    )


def _row(messages, *, success, terminated, score, max_steps, reward, category, task_id, data) -> dict[str, Any]:
    while terminated and messages[-1]["role"] == "user":
        messages.pop()
    steps = sum(message["role"] == "assistant" for message in messages)
    if reward == "score":
        rewards = [0.0] * (steps - 1) + [float(score)]
    else:
        rewards = [-1.0] * steps
        if success:
            rewards[-1] = 0.0
        elif terminated:
            rewards[-1] = -float(max(max_steps - steps + 1, 1))
    return {
        "messages": messages,
        "rewards": rewards,
        "terminated": terminated,
        "category": category,
        "source": "offline",
        "task": {"id": task_id, "category": category, "prompt": "", "data": json.dumps(data)},
        "score": float(score),
        "success": success,
    }
