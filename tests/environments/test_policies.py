import pytest
import torch
from toy_game import CHATML, COLON, byte_tokenizer, tiny_model
from transformers import GenerationConfig, GPT2LMHeadModel

from boost_trl.data.chat_templates import PLAIN_CHAT_TEMPLATE
from boost_trl.environments.policies import GenerationPolicy


class Scribe(GPT2LMHeadModel):
    """Writes a given text, whatever it reads."""

    script = ""
    tokenizer = None

    def forward(self, *args, past_key_values=None, **kwargs):
        output = super().forward(*args, past_key_values=past_key_values, **kwargs)
        written = past_key_values.get_seq_length() - self.prompt_length
        ids = self.tokenizer(self.script, add_special_tokens=False)["input_ids"]
        output.logits[:, -1] = -1e4
        output.logits[:, -1, ids[written]] = 1e4
        return output


def scripted(tokenizer, script, role="assistant", conversation=None, **kwargs):
    """What the policy makes of a model that writes `script`."""
    model = tiny_model(tokenizer, Scribe)
    model.tokenizer, model.script = tokenizer, script
    policy = GenerationPolicy(model, tokenizer, role=role, **kwargs)
    conversation = conversation or [{"role": "user", "content": "Go."}]
    model.prompt_length = len(tokenizer(policy.render(conversation), add_special_tokens=False)["input_ids"])
    return policy([conversation, conversation])


@pytest.mark.parametrize(
    ("template", "script"),
    [
        (PLAIN_CHAT_TEMPLATE, "Is it red?<eos>\nuser:\nYes."),
        (CHATML, "Is it red?<|im_end|>\n<|im_start|>user\nYes."),
        (COLON, " Is it red?##user: Yes."),
        (COLON, " Is it red?<eos>##"),
    ],
)
def test_a_reply_stops_at_the_templates_end_of_turn(template, script):
    tokenizer = byte_tokenizer(template)
    assert scripted(tokenizer, script + " " * 64) == ["Is it red?"] * 2


@pytest.mark.parametrize(
    ("template", "script"),
    [
        (PLAIN_CHAT_TEMPLATE, "Yes.\nassistant:\nIs"),
        (CHATML, "Yes.<|im_end|>\n<|im_start|>assistant\n"),
        (COLON, " Yes.##assistant: "),
    ],
)
def test_the_model_can_play_the_environment(template, script):
    conversation = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "Is it red?"}]
    tokenizer = byte_tokenizer(template)
    assert scripted(tokenizer, script + " " * 64, "user", conversation) == ["Yes."] * 2


def test_a_turn_of_several_lines_ends_at_the_next_header():
    conversation = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "click"}]
    script = "one\ntwo\nassistant:\nIs" + " " * 64
    tokenizer = byte_tokenizer(PLAIN_CHAT_TEMPLATE)
    assert scripted(tokenizer, script, "user", conversation) == ["one"] * 2
    assert scripted(tokenizer, script, "user", conversation, multiline=True) == ["one\ntwo"] * 2


def test_generation_ends_when_every_row_has_ended():
    tokenizer = byte_tokenizer(COLON)
    # The script has no letter after the mark: another step would raise.
    assert scripted(tokenizer, "No.##") == ["No."] * 2


def test_prompts_end_with_the_header_of_the_role_and_no_space():
    tokenizer = byte_tokenizer(COLON)
    model = tiny_model(tokenizer)
    conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert GenerationPolicy(model, tokenizer).render(conversation[:1]) == "user: a##assistant:"
    assert GenerationPolicy(model, tokenizer, role="user").render(conversation) == "user: a##assistant: b##user:"


def test_left_padded_batches_reply_like_single_conversations():
    tokenizer = byte_tokenizer(PLAIN_CHAT_TEMPLATE)
    model = tiny_model(tokenizer).double().eval()
    greedy = GenerationConfig(do_sample=False, max_new_tokens=12)
    policy = GenerationPolicy(model, tokenizer, generation_config=greedy)
    conversations = [[{"role": "user", "content": text}] for text in ("a", "a longer one than that", "mid")]
    together = policy(conversations)
    assert together == [policy([conversation])[0] for conversation in conversations]
    for conversation, reply in zip(conversations, together):
        ids = tokenizer(policy.render(conversation), add_special_tokens=False, return_tensors="pt")["input_ids"]
        for _ in range(12):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        prompt = tokenizer(policy.render(conversation), add_special_tokens=False)["input_ids"]
        expected = tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True).strip()
        assert reply == expected
    assert GenerationPolicy(model, tokenizer, generation_config=greedy, batch_size=2)(conversations) == together


def test_the_default_samples_the_models_whole_distribution():
    tokenizer = byte_tokenizer(PLAIN_CHAT_TEMPLATE)
    model = tiny_model(tokenizer)
    model.generation_config.top_k, model.generation_config.temperature = 1, 0.1
    policy = GenerationPolicy(model, tokenizer, max_new_tokens=1, seed=0)
    replies = policy([[{"role": "user", "content": "a"}]] * 400)
    assert len(set(replies)) > 80  # nearly uniform over 259 tokens; top-k 1 would give one


def test_a_seed_repeats_and_leaves_the_global_state_alone():
    tokenizer = byte_tokenizer(PLAIN_CHAT_TEMPLATE)
    model = tiny_model(tokenizer)
    conversation = [[{"role": "user", "content": "a"}]]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    policy = GenerationPolicy(model, tokenizer, seed=5)
    first = [policy(conversation), policy(conversation)]
    assert torch.equal(torch.rand(4), expected)
    again = GenerationPolicy(model, tokenizer, seed=5)
    assert [again(conversation), again(conversation)] == first and first[0] != first[1]
    assert GenerationPolicy(model, tokenizer, seed=6)(conversation) != first[0]


def test_the_training_mode_comes_back():
    tokenizer = byte_tokenizer(PLAIN_CHAT_TEMPLATE)
    model = tiny_model(tokenizer).train()
    GenerationPolicy(model, tokenizer, max_new_tokens=1)([[{"role": "user", "content": "a"}]])
    assert model.training and all(module.training for module in model.modules())


def test_a_conversation_beyond_the_context_loses_its_oldest_turns(caplog):
    tokenizer = byte_tokenizer(PLAIN_CHAT_TEMPLATE)
    policy = GenerationPolicy(tiny_model(tokenizer, positions=120), tokenizer, max_new_tokens=4)
    conversation = [{"role": "system", "content": "Rules"}, {"role": "user", "content": "Start"}]
    for n in range(6):
        conversation += [{"role": "assistant", "content": f"ask {n}"}, {"role": "user", "content": f"say {n}"}]
    (prompt,) = policy._encode([conversation], ["EXAMPLE" * 50])
    assert tokenizer.decode(prompt) == policy.render(conversation[:2] + conversation[-4:])
    assert len(prompt) <= 116 < len(policy.render(conversation[:2] + conversation[-6:]))
    assert "oldest turns" in caplog.text
    with pytest.raises(ValueError, match="even without its older turns"):
        policy([[{"role": "user", "content": "x" * 200}]])


def test_an_example_is_the_first_thing_left_out():
    tokenizer = byte_tokenizer(PLAIN_CHAT_TEMPLATE)
    policy = GenerationPolicy(tiny_model(tokenizer, positions=120), tokenizer, max_new_tokens=4)
    conversation = [{"role": "user", "content": "Start"}]
    prompts = policy._encode([conversation, conversation], ["EXAMPLE", "EXAMPLE" * 50])
    own = policy.render(conversation)
    assert [tokenizer.decode(prompt) for prompt in prompts] == ["EXAMPLE" + own, own]


def test_few_positions_leave_a_quarter_for_the_reply():
    tokenizer = byte_tokenizer(CHATML)
    model = tiny_model(tokenizer, positions=80)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    greedy = GenerationConfig(do_sample=False, max_new_tokens=64)  # always the first token, "!"
    (reply,) = GenerationPolicy(model, tokenizer, generation_config=greedy)([[{"role": "user", "content": "x" * 25}]])
    header = len("user\n" + "x" * 25 + "\n" + "assistant\n") + 3
    assert reply == "!" * (80 - header)


def test_a_template_that_rewrites_turns_is_refused():
    tokenizer = byte_tokenizer("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}")
    with pytest.raises(ValueError, match="does not write the content"):
        GenerationPolicy(tiny_model(tokenizer), tokenizer)
