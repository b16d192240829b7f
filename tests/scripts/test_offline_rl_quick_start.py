"""The trainer page's quick start is run as it stands, but for the model's name and the number of steps."""

import re
import shlex
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
QUICK_START = (ROOT / "docs" / "bilevel_offline_rl_trainer.md").read_text(encoding="utf-8")
QUICK_START = QUICK_START.partition("## Quick start")[2].partition("\n## ")[0]


def test_its_snippets_run(tmp_path, monkeypatch, make_tiny_model, make_dialogues, tiny_tokenizer):
    make_tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", QUICK_START, flags=re.DOTALL))
    tiny = "max_steps=4, auxiliary_steps=1, primary_steps=1, use_cpu=True, report_to='none', cache_dir='cache'"
    for original, small in (("Qwen/Qwen2.5-0.5B", "model"), ("max_steps=2000", tiny)):
        assert original in code
        code = code.replace(original, small)
    names = {"pool": make_dialogues(16, seed=1), "trusted": make_dialogues(6, seed=2)}
    exec(compile(code, "bilevel_offline_rl_trainer.md", "exec"), names)
    assert names["policy"].beta == 2.0


@pytest.mark.parametrize("command", re.findall(r"boost-trl offline-rl [^`]*", QUICK_START))
def test_its_commands_have_all_that_they_need(command, monkeypatch):
    from boost_trl.scripts.offline_rl import make_parser

    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command.replace("\\\n", " "))[2:]
    flags = [*arguments, "--use_cpu", "true", "--bf16", "false"]
    script, training, model = make_parser().parse_args_and_config(flags)
    assert script.dataset_name and model.model_name_or_path and training.output_dir != "trainer_output"


def test_there_is_a_command():
    assert "boost-trl offline-rl" in QUICK_START
