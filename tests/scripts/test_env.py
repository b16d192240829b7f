from importlib.metadata import version

import accelerate.commands.config
import pytest
import yaml

import boost_trl
from boost_trl import cli


def printed(capsys):
    assert cli.main(["env"]) == 0
    return dict(line[2:].split(": ", 1) for line in capsys.readouterr().out.splitlines() if line.startswith("- "))


def test_versions_are_those_that_are_installed(capsys):
    said = printed(capsys)
    assert said["boost_trl version"].startswith(boost_trl.__version__)
    names = {
        "TRL": "trl", "PyTorch": "torch", "Transformers": "transformers", "Accelerate": "accelerate", "Datasets": "datasets",
        "PEFT": "peft",
    }  # fmt: skip
    for name, package in names.items():
        assert said[f"{name} version"].startswith(version(package))
    assert {"Platform", "Python version", "accelerator(s)", "DeepSpeed version", "bitsandbytes version"} <= said.keys()


@pytest.mark.parametrize("secret", ["HF_TOKEN=hf_aBcD1234efgh", "WANDB_API_KEY=0123abc", "password: 0123abc"])
def test_secrets_in_accelerates_config_are_left_out(secret, capsys, monkeypatch, tmp_path):
    path = tmp_path / "config.yaml"
    config = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "NO",
        "num_processes": 3,
        "tpu_env": [secret],
    }
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setattr(accelerate.commands.config, "default_config_file", str(path))
    load = accelerate.commands.config.load_config_from_file
    monkeypatch.setattr(accelerate.commands.config, "load_config_from_file", lambda name: load(str(path)))
    cli.main(["env"])
    out = capsys.readouterr().out
    assert "num_processes: 3" in out and "(left out)" in out
    assert "aBcD1234" not in out and "0123abc" not in out


def test_an_option_is_refused(capsys):
    assert cli.main(["env", "--nope"]) == 2 and "there is no option `--nope`" in capsys.readouterr().err
