"""The texts of WebShop's embedded model, and that so small a model learns to copy from them."""

import pytest
import torch

from boost_trl.environments.embedded_lm import END, tiny_gpt2, train_on_texts, word_tokenizer
from boost_trl.environments.rollout import rollout
from boost_trl.environments.synthetic import generate_synthetic
from boost_trl.environments.webshop import WebShop, offline_trajectories, pretraining
from boost_trl.environments.webshop.pretraining import build_embedded_lm, pretraining_episodes, small_vocabulary


@pytest.fixture(scope="module")
def episodes():
    return pretraining_episodes(2000, seed=0)


def test_episodes_use_known_words_and_fit(episodes):
    words = set(small_vocabulary())
    assert len(episodes) == 2000
    assert all(set(turn.split()) <= words for turns in episodes for turn in turns)
    assert max(len(" ".join(turns).split()) + len(turns) for turns in episodes) <= pretraining.LONGEST
    assert episodes[:3] == pretraining_episodes(2000, seed=0)[:3] != pretraining_episodes(2000, seed=1)[:3]


def test_shops_of_the_model_are_not_those_of_users(episodes):
    pages = {turn for turns in episodes for turn in turns if turn.startswith("1 ")}
    for seed in range(3):
        shop = WebShop("small", seed=seed)
        mine = {message["content"] for row in offline_trajectories(shop, 100) for message in row["messages"]}
        assert not pages & {turn for turn in mine if turn.startswith("1 ") and turn.count("|") == 2}


def test_a_tiny_model_learns_to_search_for_what_is_asked(episodes):
    tokenizer = word_tokenizer(small_vocabulary())
    model = tiny_gpt2(tokenizer, max_length=64, initializer_range=0.1)
    texts = ["".join(turn + END for turn in turns[:2]) for turns in episodes]
    train_on_texts(model, tokenizer, texts, steps=150)
    right = total = 0
    for task in WebShop("small").tasks()[:100]:
        words = task.prompt.split(" under")[0].split()
        text = f"{task.prompt}{END}search {' '.join(words)}"
        with torch.no_grad():
            best = model(**tokenizer(text, return_tensors="pt")).logits[0].argmax(-1)
        right += sum(
            token == tokenizer.convert_tokens_to_ids(word) for token, word in zip(best[-len(words) - 1 :], words)
        )
        total += len(words)
    assert right / total > 0.7  # guessing: below 0.15


def test_the_model_is_built_once_and_plays_both_roles(tmp_path, monkeypatch):
    for name, value in {"NUM_EPISODES": 200, "COPY_STEPS": 2, "EPISODE_STEPS": 2}.items():
        monkeypatch.setattr(pretraining, name, value)
    model, tokenizer = build_embedded_lm(cache_dir=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "pretraining_episodes", lambda *_: pytest.fail("texts made again"))
        again, _ = build_embedded_lm(cache_dir=tmp_path)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), again.parameters()))
    env = WebShop("small", max_steps=3)
    assert len(rollout((model, tokenizer), env, env.tasks()[:2], num_envs=2, progress=False)) == 2
    rows = offline_trajectories(env, 3)
    synthetic = generate_synthetic(model, tokenizer, rows, env, max_new_tokens=4, example=False, progress=False)
    assert [row["messages"][:2] for row in synthetic] == [row["messages"][:2] for row in rows]
