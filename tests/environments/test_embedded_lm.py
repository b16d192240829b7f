import shutil

import pytest
import torch
from transformers import AutoTokenizer

from boost_trl.environments import embedded_lm
from boost_trl.environments.embedded_lm import (
    END,
    build_from_texts,
    source_hash,
    tiny_gpt2,
    train_on_texts,
    word_tokenizer,
)
from boost_trl.environments.twenty_questions.pretraining import (
    small_vocabulary,
)
from boost_trl.environments.twenty_questions.small_world import small_world


SIZES = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_length": 32}


def test_words_survive_the_round_trip(tmp_path):
    world = small_world(0)
    tokenizer = word_tokenizer(small_vocabulary())
    tokenizer.save_pretrained(tmp_path)
    texts = [text for item in world.items for text in (item.guess, world.observation(item.category))]
    texts += [text for q in world.questions for yes in (True, False) for text in (q.text, world.reply(q.text, yes))]
    for known in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert [known.decode(ids) for ids in known(texts)["input_ids"]] == texts
        assert known.decode(known("number nobody")["input_ids"]) == "number <|unknown|>"
        assert known.decode(known(f"yes{END}")["input_ids"], skip_special_tokens=True) == "yes"


def test_words_are_words():
    for word in ("", "two words"):
        with pytest.raises(ValueError, match="not one word"):
            word_tokenizer(["one", word])
    assert word_tokenizer(["a", "b", "a"]).get_vocab().keys() == {"a", "b", END, "<|pad|>", "<|unknown|>"}


def test_assistant_tokens_are_marked_with_their_end():
    tokenizer = word_tokenizer(["category:", "metals", "number", "one?", "no", "two?"])
    messages = [
        {"role": role, "content": content}
        for role, content in [
            ("user", "category: metals"),
            ("assistant", "number one?"),
            ("user", "no"),
            ("assistant", "two?"),
        ]
    ]
    encoded = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == ["category:", "metals", END, "number", "one?", END, "no", END, "two?", END]
    assert encoded["assistant_masks"] == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert whole.startswith(tokenizer.apply_chat_template(messages[:3], tokenize=False, add_generation_prompt=True))


def test_training_learns_what_follows():
    tokenizer = word_tokenizer(["red", "green", "stop", "go"])
    texts = [f"red stop{END}", f"green go{END}"] * 50
    model = tiny_gpt2(tokenizer, seed=1, **SIZES)
    untouched = torch.get_rng_state()
    loss = train_on_texts(model, tokenizer, texts, steps=60, batch_size=8, learning_rate=1e-2)
    assert torch.equal(torch.get_rng_state(), untouched)
    # The first word is given, the second follows from it, then comes the end: nothing is left to guess.
    assert loss < 0.2 and not model.training
    for cue, follows in (("red", "stop"), ("green", "go")):
        out = model.generate(**tokenizer(cue, return_tensors="pt"), max_new_tokens=3, do_sample=False)
        assert tokenizer.decode(out[0]) == f"{cue} {follows} {END}"


def test_equal_seeds_give_equal_models():
    tokenizer = word_tokenizer(["a", "b"])
    untouched = torch.get_rng_state()
    first, second, other = (tiny_gpt2(tokenizer, seed=seed, **SIZES) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), untouched)
    assert torch.equal(first.transformer.wte.weight, second.transformer.wte.weight)
    assert not torch.equal(first.transformer.wte.weight, other.transformer.wte.weight)
    for model in (first, second):
        train_on_texts(model, tokenizer, [f"a b{END}", f"b{END}"] * 4, steps=3, batch_size=2)
    assert torch.equal(first.transformer.wte.weight, second.transformer.wte.weight)


def test_a_model_is_built_once(tmp_path, monkeypatch):
    words, texts = ["a", "b"], [f"a b{END}"]
    model, tokenizer = build_from_texts("toy", words, [(texts, 2)], cache_dir=tmp_path, **SIZES)
    other, _ = build_from_texts("toy", words, [(texts, 3)], cache_dir=tmp_path, **SIZES)
    assert len(list(tmp_path.iterdir())) == 2
    assert not torch.equal(model.transformer.wte.weight, other.transformer.wte.weight)

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(embedded_lm, "train_on_texts", never)
    again, same = build_from_texts("toy", words, [(texts, 2)], cache_dir=tmp_path, **SIZES)
    assert torch.equal(again.transformer.wte.weight, model.transformer.wte.weight) and not again.training
    assert same.get_vocab() == tokenizer.get_vocab() and same.chat_template == tokenizer.chat_template


def test_texts_are_made_only_for_a_model_that_is_not_there(tmp_path, monkeypatch):
    calls = []

    def stages(word="b"):
        calls.append(word)
        return [([f"a {word}{END}"], 2)]

    def build(word, made_with):
        options = {"cache_dir": tmp_path, "made_with": made_with, **SIZES}
        return build_from_texts("toy", ["a", "b", "c"], lambda: stages(word), **options)[0].transformer.wte.weight

    first = build("b", ["code 1", "b"])
    with monkeypatch.context() as patch:
        patch.setattr(embedded_lm, "train_on_texts", lambda *_, **__: pytest.fail("trained again"))
        assert torch.equal(build("b", ["code 1", "b"]), first) and calls == ["b"]
        # Other code may make other texts, but these are the same.
        assert torch.equal(build("b", ["code 2", "b"]), first) and calls == ["b", "b"]
    assert not torch.equal(build("c", ["code 2", "c"]), first) and calls == ["b", "b", "c"]
    # A model that somebody removed is built again.
    for folder in tmp_path.glob("toy-*"):
        if folder.is_dir():
            shutil.rmtree(folder)
    assert torch.equal(build("b", ["code 1", "b"]), first)


def test_the_source_hash_changes_with_the_code(tmp_path):
    world = tmp_path / "world"
    world.mkdir()
    hashes = set()
    for path, code in (
        (world / "a.py", "1"),
        (world / "a.py", "2"),
        (tmp_path / "base.py", ""),
        (tmp_path / "base.py", "3"),
    ):
        path.write_text(code)
        hashes.add(source_hash(world / "a.py"))
    assert len(hashes) == 3  # an empty file says nothing
    (tmp_path / "notes.txt").write_text("x")
    assert source_hash(world / "a.py") in hashes


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded_lm, "train_on_texts", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_from_texts("toy", ["a"], [([f"a{END}"], 2)], cache_dir=tmp_path, **SIZES)
    assert not list(tmp_path.iterdir())
