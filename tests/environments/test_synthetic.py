import json
import re
import time

import pytest
from datasets import Dataset, concatenate_datasets
from toy_game import CHATML, GuessNumber, byte_tokenizer, tiny_model
from transformers import GPT2LMHeadModel

from boost_trl import generate_synthetic, rollout
from boost_trl.data.chat_templates import PLAIN_CHAT_TEMPLATE
from boost_trl.data.trajectories import validate_trajectories
from boost_trl.environments import synthetic
from boost_trl.environments.synthetic import SyntheticRules, TextOutcome
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories


class GuessRules:
    """Guessing numbers, judged by the words: "Right." ends the game, and so does "stop"."""

    max_turns = 5

    def agent_prompt(self, task):
        return "You guess."

    def environment_prompt(self, task):
        return f"You know {task.data['secret']}."

    def is_terminal(self, messages):
        return messages[-1]["content"] in ("Right.", "stop")

    def rewards_from_text(self, messages, task):
        turns = sum(m["role"] == "assistant" for m in messages)
        success = messages[-1]["content"] == "Right."
        terminated = self.is_terminal(messages) or turns == self.max_turns
        rewards = [-1.0] * (turns - 1) + [0.0 if success else -1.0]
        return TextOutcome(rewards, terminated, float(self.max_turns - turns) if success else 0.0, success)


class PlayableGuess(GuessNumber):
    def synthetic_rules(self):
        return GuessRules()


class Author(GPT2LMHeadModel):
    """A model that reads its whole prompt and writes what `author(prompt)` says, letter by letter."""

    def generate(self, input_ids, attention_mask, **kwargs):
        prompts = [self.tokenizer.decode(ids[keep.bool()]) for ids, keep in zip(input_ids, attention_mask)]
        self.prompts.append(prompts)
        self.start = input_ids.shape[1]
        self.texts = [self.tokenizer(self.author(p), add_special_tokens=False)["input_ids"] for p in prompts]
        return super().generate(input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    def forward(self, *args, past_key_values=None, **kwargs):
        output = super().forward(*args, past_key_values=past_key_values, **kwargs)
        step = past_key_values.get_seq_length() - self.start
        output.logits[:, -1] = -1e4
        for row, ids in enumerate(self.texts):
            output.logits[row, -1, ids[min(step, len(ids) - 1)]] = 1e4
        return output


def counting(prompt, end, stop_at="none"):
    """Plays both sides for the secret 3: the agent counts on, the environment compares."""
    numbers = re.findall(r"assistant\n(\d|stop)|assistant:\n(\d|stop)", prompt)
    last = "".join(numbers[-1])
    if "user" in prompt.splitlines()[-1]:
        return ("Right." if last == "3" else "Higher.") + end
    following = str(int(last) + 1)
    return ("stop" if following == stop_at else following) + end


def author_model(template=CHATML, end="<|im_end|>", positions=2048, author=counting, **kwargs):
    tokenizer = byte_tokenizer(template)
    model = tiny_model(tokenizer, Author, positions=positions)
    model.tokenizer, model.prompts = tokenizer, []
    model.author = lambda prompt: author(prompt, end, **kwargs)
    return model, tokenizer


@pytest.fixture
def rows():
    """Real games, of the secrets 0, 1, 4 and 8, whose first guesses are 0, 0, 2 and 0 and whose others are 9."""

    def policy(conversations):
        opening = all(len(conversation) == 2 for conversation in conversations)
        return ["0", "0", "2", "0"] if opening else ["9"] * len(conversations)

    return rollout(policy, GuessNumber(), ["0", "1", "4", "8"], progress=False)


def synthesize(model, tokenizer, rows, env=None, **kwargs):
    return generate_synthetic(model, tokenizer, rows, env or PlayableGuess(), progress=False, **kwargs)


def contents(row, role):
    return [m["content"] for m in row["messages"] if m["role"] == role]


def test_the_toy_follows_the_protocol():
    assert isinstance(GuessRules(), SyntheticRules) and not isinstance(PlayableGuess(), SyntheticRules)


@pytest.mark.parametrize(("template", "end"), [(CHATML, "<|im_end|>"), (PLAIN_CHAT_TEMPLATE, "\n<eos>")])
def test_one_episode_per_row_played_by_the_model_alone(rows, template, end):
    model, tokenizer = author_model(template, end)
    synthetic = synthesize(model, tokenizer, rows)
    validate_trajectories(synthetic)
    assert len(synthetic) == len(rows) == 4 and synthetic["parent"] == [0, 1, 2, 3]
    for row, real in zip(synthetic, rows):
        assert row["messages"][:3] == real["messages"][:3]
        assert contents(row, "assistant") == [str(n) for n in range(int(real["messages"][2]["content"]), 4)]
        assert set(contents(row, "user")[1:]) == {"Higher."}
        assert row["source"] == "synthetic" and row["category"] == real["category"] and row["task"] == real["task"]
        turns = len(row["rewards"])
        assert row["rewards"] == [-1.0] * (turns - 1) + [0.0] and row["score"] == 5.0 - turns and row["success"]
        assert row["terminated"] and row["messages"][-1]["content"] == "3"
    concatenate_datasets([rows, synthetic])


def test_what_the_rows_pass_to_the_chat_template_stays_with_them(rows):
    model, tokenizer = author_model()
    tools = [{"type": "function", "function": {"name": f"guess_{at}"}} for at in range(4)]
    arguments = [{"enable_thinking": at > 1} for at in range(4)]
    rows = Dataset.from_list(
        [{**row, "tools": [tool], "chat_template_kwargs": kwargs} for row, tool, kwargs in zip(rows, tools, arguments)]
    )
    synthetic = synthesize(model, tokenizer, rows)
    validate_trajectories(synthetic)
    assert synthetic["tools"][:] == [[tool] for tool in tools] and synthetic["chat_template_kwargs"][:] == arguments
    assert len(concatenate_datasets([rows, synthetic])) == 8


def test_the_model_reads_what_the_rows_pass_to_the_chat_template(rows, caplog):
    model, tokenizer = author_model("{% if tools %}{{ tools[0]['name'] }}{% endif %}" + CHATML)
    everyone = rows.add_column("tools", ['[{"name": "TOOL"}]'] * 4)
    written = [synthesize(model, tokenizer, table)["messages"][:] for table in (rows, everyone)]
    assert written[0] == written[1]
    without, with_tools = model.prompts[: len(model.prompts) // 2], model.prompts[len(model.prompts) // 2 :]
    for bare, told in zip(sum(without, []), sum(with_tools, [])):
        # Once in the example's system turn and once in the history's.
        assert told.count("TOOL") == 2 and told.replace("TOOL", "") == bare
    model.prompts.clear()
    assert not caplog.records
    synthesize(model, tokenizer, rows.add_column("tools", ['[{"name": "TOOL"}]', None] * 2))
    assert "TOOL" not in str(model.prompts)
    assert [record.message for record in caplog.records] == [
        "dataset: rows differ in `tools` or `chat_template_kwargs`, so the model reads neither of them"
    ]


def test_the_environments_own_answers_play_no_part(rows):
    # The real secrets are 0, 1, 4 and 8; by the text's own words the answer is always 3.
    model, tokenizer = author_model()
    assert {row["messages"][-1]["content"] for row in synthesize(model, tokenizer, rows)} == {"3"}


def test_a_terminal_action_ends_the_episode_without_an_answer(rows):
    model, tokenizer = author_model(stop_at="2")
    row = synthesize(model, tokenizer, rows.select([0]))[0]
    assert contents(row, "assistant") == ["0", "1", "stop"] and row["terminated"] and not row["success"]
    assert row["messages"][-1]["content"] == "stop"


def test_an_episode_that_begins_with_its_end_is_not_continued(rows):
    row = rows[0]
    row["messages"][2]["content"] = "stop"
    model, tokenizer = author_model()
    written = synthesize(model, tokenizer, Dataset.from_list([row]))[0]
    assert written["messages"] == row["messages"][:3] and model.prompts == []


def test_the_limit_cuts_after_an_answer(rows):
    model, tokenizer = author_model()
    row = synthesize(model, tokenizer, rows.select([0]), max_turns=2)[0]
    assert contents(row, "assistant") == ["0", "1"] and not row["terminated"] and row["score"] == 0.0
    assert row["messages"][-1] == {"role": "user", "content": "Higher."}


def test_plain_prompts_are_one_other_row_and_the_history(rows):
    model, tokenizer = author_model()
    synthesize(model, tokenizer, rows)
    rendered = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows]
    for index, prompt in enumerate(model.prompts[0]):
        history = tokenizer.apply_chat_template(rows[index]["messages"][:3], tokenize=False) + "<|im_start|>user\n"
        assert prompt.endswith(history)
        assert prompt.removesuffix(history) in [text for i, text in enumerate(rendered) if i != index]
    model.prompts.clear()
    synthesize(model, tokenizer, rows, example=False)
    history = tokenizer.apply_chat_template(rows[0]["messages"][:3], tokenize=False) + "<|im_start|>user\n"
    assert model.prompts[0][0] == history


def test_without_turn_headers_an_example_ends_with_an_observation(rows):
    bare = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    model, tokenizer = author_model(bare, "<eos>", author=lambda prompt, end: "Right." + end)
    synthesize(model, tokenizer, rows.select([1, 1]))
    system = "Guess a number from 0 to 9."
    example = [system, "It is odd.", "0", "Higher.", "9", "Lower.", "9", "Lower.", "9", "Lower."]
    history = [system, "It is odd.", "0"]
    assert model.prompts[0][0] == "".join(text + "<eos>" for text in example + history)


def test_paper_prompts_are_the_role_the_example_and_the_history(rows):
    model, tokenizer = author_model()
    synthesize(model, tokenizer, rows, prompt_style="paper")
    world, player = model.prompts[0][2], model.prompts[1][2]
    assert world.startswith("<|im_start|>system\nYou know 4.\n\nAn example of a valid trajectory:\nEnvironment: It is")
    assert player.startswith("<|im_start|>system\nYou guess.\n\nAn example of a valid trajectory:\nEnvironment: It is")
    assert world.count("system\n") == 1 and "Guess a number" not in world
    assert "\nAgent: " in world.split("<|im_end|>")[0]
    history = rows[2]["messages"][1:3]
    assert world.endswith(tokenizer.apply_chat_template(history, tokenize=False) + "<|im_start|>user\n")
    assert player.endswith("Higher.<|im_end|>\n<|im_start|>assistant\n")


def test_sampling_repeats_by_seed(rows):
    tokenizer = byte_tokenizer(CHATML)
    model = tiny_model(tokenizer, positions=1024)
    first, again, other = (
        synthesize(model, tokenizer, rows, seed=s, max_new_tokens=5, max_turns=2).to_list() for s in (0, 0, 1)
    )
    assert first == again != other


def test_a_killed_run_goes_on_where_it_stopped(rows, tmp_path):
    tokenizer = byte_tokenizer(CHATML)
    model = tiny_model(tokenizer, positions=1024)
    kwargs = {"batch_size": 2, "max_new_tokens": 5, "max_turns": 2}
    many = concatenate_datasets([rows, rows])
    whole = synthesize(model, tokenizer, many, output_path=tmp_path / "whole.jsonl", **kwargs)
    assert whole.to_list() == synthesize(model, tokenizer, many, **kwargs).to_list()
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 8

    path = tmp_path / "killed.jsonl"
    (tmp_path / "killed.jsonl.settings.json").write_text((tmp_path / "whole.jsonl.settings.json").read_text())
    path.write_text("".join(lines[:5]) + lines[5][:40])  # two whole batches, and a row and a half
    calls = []
    model.register_forward_pre_hook(lambda *args: calls.append(1))
    assert synthesize(model, tokenizer, many, output_path=path, **kwargs).to_list() == whole.to_list()
    assert path.read_text() == "".join(lines) and calls

    calls.clear()
    assert synthesize(model, tokenizer, many, output_path=path, **kwargs).to_list() == whole.to_list()
    assert not calls  # nothing was left to do
    with pytest.raises(ValueError, match="seed=0, now 3"):
        synthesize(model, tokenizer, many, output_path=path, seed=3, **kwargs)

    with pytest.raises(ValueError, match="rows="):
        synthesize(model, tokenizer, many.add_column("tools", ["[{}]"] * 8), output_path=path, **kwargs)

    class Generous(GuessRules):
        def rewards_from_text(self, messages, task):
            outcome = super().rewards_from_text(messages, task)
            return outcome._replace(rewards=[reward + 1 for reward in outcome.rewards])

    with pytest.raises(ValueError, match="rules="):
        synthesize(model, tokenizer, many, Generous(), output_path=path, **kwargs)
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"a": 1}) + "\n")
    with pytest.raises(ValueError, match=r"other\.jsonl holds rows of other settings"):
        synthesize(model, tokenizer, many, output_path=other, **kwargs)


def test_a_file_is_known_by_its_environment_whatever_its_rules_are_called(rows, tmp_path):
    class RenamedRules(GuessRules):
        pass

    class Renamed(PlayableGuess):
        def synthetic_rules(self):
            return RenamedRules()

    class Another(PlayableGuess):
        name = "guess_another"

    model, tokenizer = author_model()
    path, settings_path = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.settings.json"
    whole = synthesize(model, tokenizer, rows, output_path=path).to_list()
    settings = json.loads(settings_path.read_text())
    assert settings["rules"][0] == "guess_number"
    model.prompts.clear()
    assert synthesize(model, tokenizer, rows, Renamed(), output_path=path).to_list() == whole and not model.prompts
    with pytest.raises(ValueError, match="rules=.*'guess_number'.*'guess_another'"):
        synthesize(model, tokenizer, rows, Another(), output_path=path)
    # As files were written before, by the class of the rules.
    settings["rules"][0] = "GuessRules"
    settings_path.write_text(json.dumps(settings))
    assert synthesize(model, tokenizer, rows, output_path=path).to_list() == whole and not model.prompts
    with pytest.raises(ValueError, match="rules=.*'GuessRules'"):
        synthesize(model, tokenizer, rows, Renamed(), output_path=path)


def test_bad_input_is_named(rows):
    model, tokenizer = author_model()
    with pytest.raises(ValueError, match="GuessNumber offers no rules"):
        synthesize(model, tokenizer, rows, GuessNumber())
    with pytest.raises(ValueError, match="prompt_style"):
        synthesize(model, tokenizer, rows, prompt_style="fancy")
    with pytest.raises(ValueError, match="temperature"):
        synthesize(model, tokenizer, rows, temperature=0)
    with pytest.raises(ValueError, match="max_turns"):
        synthesize(model, tokenizer, rows, max_turns=0)
    with pytest.raises(ValueError, match="row 0, column `task`"):
        synthesize(model, tokenizer, rows.remove_columns("task"), prompt_style="paper")
    world = TwentyQuestions("full")
    foreign = offline_trajectories(world, 1).to_list()
    foreign[0]["task"]["id"] = "bear"
    with pytest.raises(ValueError, match="dataset, row 0, column `task`: .*no item 'bear'; ids look like 'Sports/"):
        synthesize(model, tokenizer, Dataset.from_list(foreign), world, prompt_style="paper")
    with pytest.raises(ValueError, match="row 0, column `rewards`"):
        synthesize(model, tokenizer, Dataset.from_list([{"messages": rows[0]["messages"], "rewards": [1.0, 2.0]}]))
    with pytest.raises(ValueError, match="empty"):
        synthesize(model, tokenizer, rows.select([]))

    class Miscounting(GuessRules):
        def rewards_from_text(self, messages, task):
            return TextOutcome([0.0], True, 0.0, False)

    with pytest.raises(RuntimeError, match="lost all . episodes, such as by: ValueError: rewards_from_text"):
        synthesize(model, tokenizer, rows, Miscounting())


def test_rules_that_fail_lose_their_own_episode_only(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(synthetic, "_RULES_TIMEOUT", 0.2)

    class Failing(GuessRules):
        """Fails in the episodes of rows 1 to 3, by how these begin."""

        def is_terminal(self, messages):
            if messages[0]["content"] == "raise":
                raise ZeroDivisionError("no rule")
            return super().is_terminal(messages)

        def rewards_from_text(self, messages, task):
            if messages[0]["content"] == "hang":
                time.sleep(60)
            outcome = super().rewards_from_text(messages, task)
            return outcome._replace(rewards=["many"]) if messages[0]["content"] == "nonsense" else outcome

    openings = ["It is odd.", "raise", "hang", "nonsense", "It is odd."]
    rows = Dataset.from_list(
        [
            {
                "messages": [{"role": "user", "content": opening}, {"role": "assistant", "content": "0"}],
                **{"rewards": [0.0], "category": "odd", "task": {"id": "3", "category": "odd", "data": {"secret": 3}}},
            }
            for opening in openings
        ]
    )
    model, tokenizer = author_model()
    options = {"example": False, "batch_size": 2, "progress": False, "output_path": tmp_path / "rows.jsonl"}
    made = generate_synthetic(model, tokenizer, rows, Failing(), **options)
    good = generate_synthetic(model, tokenizer, rows, GuessRules(), example=False, batch_size=2, progress=False)
    assert made.to_list() == [good[0], good[4]]
    assert "3 of 5 episodes were lost by the synthetic rules" in caplog.text
    text = (tmp_path / "rows.jsonl").read_text()
    assert [json.loads(line)["parent"] for line in text.splitlines()] == [0, 4]
    # Killed in the third batch, and called again: the first two are read, the third is written anew.
    (tmp_path / "rows.jsonl").write_text(text.splitlines(keepends=True)[0] + '{"mess')
    model.prompts.clear()
    again = generate_synthetic(model, tokenizer, rows, Failing(), **options)
    assert again.to_list() == made.to_list() and (tmp_path / "rows.jsonl").read_text() == text
    assert {len(prompts) for prompts in model.prompts} == {1}
