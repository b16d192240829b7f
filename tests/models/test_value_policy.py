import copy
import shutil

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, RepoUrl
from peft import PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from boost_trl.environments.embedded_lm import word_tokenizer
from boost_trl.models.value_policy import ValuePolicy


PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [3, 4, 3, 4, 3, 4, 3], [20]]
MAX_NEW_TOKENS = 6

# name: (architecture, adapter, heads, prior, reference)
POLICIES = {
    "gpt2": ("gpt2", False, {"algorithm": "mc", "bias": "token"}, "none", None),
    "llama": ("llama", False, {"algorithm": "ilql"}, "none", None),
    "lora": ("gpt2", True, {"algorithm": "mc", "rank": 5}, "none", None),
    "gpt2 × frozen prior": ("gpt2", False, {"algorithm": "mc", "train_backbone": False}, "lm", "itself"),
    "llama × frozen prior": ("llama", False, {"algorithm": "ilql", "train_backbone": False}, "lm", "itself"),
    "llama × second model": ("llama", False, {"algorithm": "ilql"}, "lm", "second"),
    "lora × adapters off": ("llama", True, {"algorithm": "ilql"}, "lm", "adapters off"),
}


@pytest.fixture(params=POLICIES)
def case(request, tiny):
    """A policy, and its logits by definition: no cache, no padding, one sequence."""
    architecture, adapter, heads, prior, reference = POLICIES[request.param]
    original = tiny.language_model(architecture)
    lm = tiny.lora(copy.deepcopy(original)) if adapter else original
    second = None
    if reference == "second":
        second = original
        lm = copy.deepcopy(original)
        torch.manual_seed(7)
        for parameter in lm.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    value_heads = tiny.value_heads(**heads)
    policy = ValuePolicy(lm, value_heads, beta=1.5, prior=prior, reference_model=second).eval()
    pretrained = copy.deepcopy(original)

    @torch.no_grad()
    def logits_by_definition(ids):
        ids = torch.tensor([ids])
        hidden = lm(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
        tensors = value_heads.state_dict()
        weight = tensors.get("q_weight")
        if weight is None:
            weight = tensors["q_factor_out"] @ tensors["q_factor_in"]
        logits = 1.5 * (torch.einsum("td,kvd->ktv", hidden, weight) + tensors["q_bias"][:, None]).amin(0)
        if prior == "lm":
            logits = logits + pretrained(input_ids=ids).logits[0].log_softmax(-1)
        return logits.log_softmax(-1)

    return policy, logits_by_definition


def left_padded(prompts):
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def continuations(output, prompts):
    return output[:, max(map(len, prompts)) :].tolist()


def test_logits_equal_the_definition(case):
    policy, logits_by_definition = case
    ids = torch.tensor(PROMPTS[:1])
    expected = logits_by_definition(PROMPTS[0])
    logits = policy(input_ids=ids).logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits[0].log_softmax(-1), expected, rtol=1e-4, atol=1e-4)
    for kept, positions in ((2, [3, 4]), (torch.tensor([0, 3]), [0, 3])):
        some = policy(input_ids=ids, logits_to_keep=kept).logits[0].log_softmax(-1)
        torch.testing.assert_close(some, expected[positions], rtol=1e-4, atol=1e-4)


def test_greedy_generation_is_the_same_cached_uncached_and_batched(case):
    policy, logits_by_definition = case
    expected = []
    for prompt in PROMPTS:
        ids = list(prompt)
        for _ in range(MAX_NEW_TOKENS):
            logits = logits_by_definition(ids)[-1]
            logits[0] = -torch.inf  # the end-of-sequence token
            ids.append(int(logits.argmax()))
        expected.append(ids[len(prompt) :])
    assert len({tuple(reply) for reply in expected}) == len(PROMPTS)
    options = {"do_sample": False, "min_new_tokens": MAX_NEW_TOKENS, "max_new_tokens": MAX_NEW_TOKENS}
    ids, mask = left_padded(PROMPTS)
    for use_cache in (True, False):
        output = policy.generate(ids, attention_mask=mask, use_cache=use_cache, **options)
        assert continuations(output, PROMPTS) == expected


def test_generation_from_a_batch_of_one(case):
    policy, _ = case
    ids, mask = left_padded(PROMPTS)
    batched = policy.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=3, min_new_tokens=3)
    for row, prompt in enumerate(PROMPTS):
        alone = policy.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=3, min_new_tokens=3)
        assert continuations(alone, [prompt])[0] == continuations(batched, PROMPTS)[row]


@pytest.mark.parametrize("case", ["llama", "lora × adapters off"], indirect=True)
def test_beams_keep_both_caches_in_order(case):
    policy, _ = case
    ids, mask = left_padded(PROMPTS)
    options = {"num_beams": 4, "do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8}
    cached = policy.generate(ids, attention_mask=mask, **options)
    assert torch.equal(cached, policy.generate(ids, attention_mask=mask, use_cache=False, **options))


@pytest.mark.parametrize("case", ["gpt2", "lora × adapters off"], indirect=True)
def test_sampling_follows_the_policy(case):
    policy, logits_by_definition = case
    probabilities = logits_by_definition(PROMPTS[0])[-1].exp()
    torch.manual_seed(0)
    samples = policy.generate(
        torch.tensor(PROMPTS[:1]), do_sample=True, top_k=0, max_new_tokens=1, num_return_sequences=4000
    )[:, -1]
    frequencies = samples.bincount(minlength=len(probabilities)) / 4000
    assert (frequencies - probabilities).abs().max() < 0.03
    cooler = policy.generate(
        torch.tensor(PROMPTS[:1]),
        do_sample=True,
        temperature=0.5,
        top_k=2,
        max_new_tokens=1,
        num_return_sequences=4000,
    )[:, -1]
    best = probabilities.topk(2)
    assert set(cooler.tolist()) <= set(best.indices.tolist())
    expected = best.values[0] ** 2 / best.values.square().sum()
    assert abs((cooler == best.indices[0]).double().mean() - expected) < 0.03


@pytest.mark.parametrize("case", ["llama × frozen prior"], indirect=True)
def test_subtracting_v_changes_nothing(case):
    policy, _ = case
    ids, mask = left_padded(PROMPTS)
    outcomes = []
    for v in (0.0, 3.0):
        policy.value_heads.v_weight.data.fill_(v)
        policy.value_heads.v_bias.data.fill_(-v)
        torch.manual_seed(0)
        sampled = policy.generate(ids, attention_mask=mask, do_sample=True, max_new_tokens=8)
        outcomes.append((sampled, policy(input_ids=ids, attention_mask=mask).logits))
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    torch.testing.assert_close(outcomes[0][1].log_softmax(-1), outcomes[1][1].log_softmax(-1), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(outcomes[0][1], outcomes[1][1], atol=0.1)


def test_only_the_last_position_is_projected_and_no_lm_head_is_run(tiny, monkeypatch):
    lm = tiny.language_model("llama")
    policy = ValuePolicy(lm, tiny.value_heads()).eval()
    shapes = []
    project = policy.value_heads.q_logits
    monkeypatch.setattr(policy.value_heads, "q_logits", lambda h, r: shapes.append(tuple(h.shape)) or project(h, r))
    lm.lm_head.register_forward_hook(lambda *_: pytest.fail("vocabulary logits of the language model are not needed"))
    lm.model.register_forward_hook(
        lambda module, args, kwargs, output: shapes.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    policy.generate(torch.tensor(PROMPTS[:1]), do_sample=False, max_new_tokens=3, min_new_tokens=3)
    assert shapes == [5, (1, 1, 16), 1, (1, 1, 16), 1, (1, 1, 16)]


@pytest.mark.parametrize("heads, expected", [("mean", torch.mean), ("min", torch.amin), ("first", lambda q, _: q[0])])
def test_which_head_acts(heads, expected, tiny):
    lm = tiny.language_model()
    value_heads = tiny.value_heads("ilql")
    hidden = torch.randn(1, 3, 16)
    both = torch.stack([hidden @ weight.T + bias for weight, bias in zip(value_heads.q_weight, value_heads.q_bias)])
    torch.testing.assert_close(value_heads.q_logits(hidden, heads), expected(both, 0))
    policy = ValuePolicy(lm, value_heads, heads=heads)
    ids = torch.tensor(PROMPTS[:1])
    states = lm(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(policy(input_ids=ids).logits, value_heads.q_logits(states, heads))


@pytest.mark.parametrize("case", ["lora × adapters off", "llama × second model"], indirect=True)
def test_a_cache_that_the_reference_has_not_seen_is_refused(case):
    policy, _ = case
    lm = policy.causal_lm
    ids = torch.tensor(PROMPTS[:1])
    foreign = lm(input_ids=ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="not filled by this policy"):
        policy(input_ids=ids[:, :1], past_key_values=foreign, use_cache=True)
    own = policy(input_ids=ids, use_cache=True).past_key_values
    assert own.reference_cache.get_seq_length() == own.get_seq_length() == 5


def test_a_bfloat16_backbone_gives_float32_logits(tiny):
    lm = tiny.language_model("llama").bfloat16()
    value_heads = tiny.value_heads(train_backbone=False)
    ids = torch.tensor(PROMPTS[:1])
    hidden = lm(input_ids=ids, output_hidden_states=True).hidden_states[-1].float()
    logits = ValuePolicy(lm, value_heads)(input_ids=ids).logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, hidden @ value_heads.q_weight[0].T + value_heads.q_bias[0])


class TestSaving:
    @pytest.mark.parametrize("architecture", ["gpt2", "llama"])
    def test_full_model(self, architecture, tiny, tmp_path):
        policy = ValuePolicy(tiny.language_model(architecture), tiny.value_heads("ilql"), beta=2.0).eval()
        policy.save_pretrained(tmp_path)
        loaded = ValuePolicy.from_pretrained(tmp_path, beta=2.0)
        ids, mask = left_padded(PROMPTS)
        expected = policy.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=5)
        assert torch.equal(loaded.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=5), expected)
        torch.testing.assert_close(loaded(ids, mask).logits, policy(ids, mask).logits)
        assert not loaded.training

    def test_adapter(self, tiny, tmp_path):
        base = tiny.language_model("llama")
        base.save_pretrained(tmp_path / "base")
        base.name_or_path = str(tmp_path / "base")
        base.config._name_or_path = str(tmp_path / "base")
        policy = ValuePolicy(tiny.lora(base), tiny.value_heads(), prior="lm").eval()
        policy.save_pretrained(tmp_path / "out")
        assert (tmp_path / "out/backbone/adapter_config.json").is_file()
        loaded = ValuePolicy.from_pretrained(tmp_path / "out", prior="lm")
        ids = torch.tensor(PROMPTS[:1])
        torch.testing.assert_close(loaded(ids).logits, policy(ids).logits)
        assert not torch.allclose(loaded(ids).logits, ValuePolicy(base, tiny.value_heads())(ids).logits, atol=0.1)

    def test_reference_by_name(self, tiny, tmp_path):
        ValuePolicy(tiny.language_model("llama"), tiny.value_heads()).save_pretrained(tmp_path / "out")
        reference = tiny.language_model("gpt2")
        reference.save_pretrained(tmp_path / "reference")
        policy = ValuePolicy.from_pretrained(
            tmp_path / "out", 1.0, "lm", reference_model_name_or_path=str(tmp_path / "reference")
        )
        ids = torch.tensor(PROMPTS[:1])
        own = ValuePolicy.from_pretrained(tmp_path / "out", beta=1.0)
        expected = reference(ids).logits.log_softmax(-1) + own(ids).logits
        torch.testing.assert_close(policy(ids).logits, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        "options", [{"beta": 2.0}, {"beta": 0.5, "prior": "lm"}, {"heads": "mean"}, {"heads": "first"}], ids=str
    )
    def test_a_policy_comes_back_as_it_was(self, options, tiny, tmp_path):
        value_heads = tiny.value_heads("ilql", train_backbone=False)
        policy = ValuePolicy(tiny.language_model("llama"), value_heads, **options).eval()
        policy.save_pretrained(tmp_path)
        loaded = ValuePolicy.from_pretrained(tmp_path)
        ids = torch.tensor(PROMPTS[:1])
        torch.testing.assert_close(loaded(ids).logits, policy(ids).logits)
        assert (value_heads.config.beta, value_heads.config.prior, value_heads.config.heads) == (1.0, "none", "min")

    def test_its_reference_comes_back_by_name(self, tiny, tmp_path):
        tiny.language_model("gpt2").save_pretrained(tmp_path / "reference")
        reference = AutoModelForCausalLM.from_pretrained(tmp_path / "reference")
        policy = ValuePolicy(tiny.language_model("llama"), tiny.value_heads(), 0.5, "lm", reference_model=reference)
        policy.eval().save_pretrained(tmp_path / "out")
        ids = torch.tensor(PROMPTS[:1])
        torch.testing.assert_close(ValuePolicy.from_pretrained(tmp_path / "out")(ids).logits, policy(ids).logits)

    @pytest.mark.parametrize("algorithm", ["mc", "ilql"])
    def test_a_push_carries_tokenizer_and_card(self, algorithm, tiny, tmp_path, monkeypatch):
        pushed = tmp_path / "pushed"
        monkeypatch.setattr(
            HfApi, "create_repo", lambda self, name, **kwargs: RepoUrl(f"https://huggingface.co/{name}")
        )
        monkeypatch.setattr(
            HfApi, "upload_folder", lambda self, folder_path, **kwargs: shutil.copytree(folder_path, pushed)
        )
        tokenizer = word_tokenizer("yes no maybe".split())
        lm = tiny.language_model("llama", vocab_size=len(tokenizer))
        heads = tiny.value_heads(algorithm, vocab_size=len(tokenizer), base_model_name_or_path="me/base")
        policy = ValuePolicy(lm, heads, beta=2.0, processing_class=tokenizer).eval()
        policy.push_to_hub("me/agent", tags=["games"])
        loaded = ValuePolicy.from_pretrained(pushed)
        assert (
            loaded.beta == 2.0 and loaded.processing_class("yes no")["input_ids"] == tokenizer("yes no")["input_ids"]
        )
        card = ModelCard.load(pushed / "README.md")
        assert card.data.base_model == "me/base" and {"boost_trl", "games"} <= set(card.data.tags)
        assert 'from_pretrained("me/agent"' in card.text and "`none`, 2: softmax of β · Q" in card.text
        assert card.data.pipeline_tag == {"mc": "text-generation", "ilql": None}[algorithm]
        if algorithm == "mc":
            ids = torch.tensor([[3, 4, 5]])
            plain = AutoModelForCausalLM.from_pretrained(pushed)(ids).logits.log_softmax(-1)
            torch.testing.assert_close(plain, policy(ids).logits.log_softmax(-1), rtol=0, atol=1e-5)

    def test_a_folder_without_heads_is_named(self, tiny, tmp_path):
        tiny.language_model().save_pretrained(tmp_path)
        with pytest.raises(FileNotFoundError, match="value_heads_config.json"):
            ValuePolicy.from_pretrained(tmp_path)


class TestErrors:
    def test_options(self, tiny):
        with pytest.raises(ValueError, match="`prior` must be 'none' or 'lm', got 'bc'"):
            ValuePolicy(tiny.language_model(), tiny.value_heads(), prior="bc")
        with pytest.raises(ValueError, match="`heads` must be"):
            ValuePolicy.from_pretrained("nowhere", heads="max")

    def test_no_reference(self, tiny):
        with pytest.raises(ValueError, match="reference_model_name_or_path"):
            ValuePolicy(tiny.language_model(), tiny.value_heads(), prior="lm")

    def test_heads_of_another_model(self, tiny):
        heads = tiny.value_heads(vocab_size=60, base_model_name_or_path="user/other")
        with pytest.raises(ValueError, match=r"\(60, 16\).*\(61, 16\).*user/other"):
            ValuePolicy(tiny.language_model(), heads)

    def test_learned_prompts(self, tiny):
        prompted = get_peft_model(
            tiny.language_model(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
        )
        with pytest.raises(ValueError, match="PROMPT_TUNING.*LoRA"):
            ValuePolicy(prompted, tiny.value_heads())
