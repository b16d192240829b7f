import json

import pytest
from datasets import Dataset

import boost_trl
from boost_trl import cli
from boost_trl.scripts import offline_rl


def episode(category, **columns):
    messages = [{"role": "user", "content": "yes ."}, {"role": "assistant", "content": "is it big ?"}]
    return {"messages": messages, "rewards": [-1.0], "category": category, **columns}


def task(name):
    return {"id": name, "category": "things", "prompt": "", "data": "{}"}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


class Recorder:
    """Stands where the trainer does, and keeps what it was given and asked to do."""

    fails_in = None

    def __init__(self, model, args, **kwargs):
        self.model, self.args, self.given, self.calls, self.resumed = model, args, kwargs, [], None
        self.accelerator = self
        type(self).last = self

    def _call(self, name):
        self.calls.append(name)
        if self.fails_in == name:
            raise ValueError(f"{name} broke")

    def train(self, resume_from_checkpoint=None):
        self.resumed = resume_from_checkpoint
        self._call("train")

    def evaluate(self):
        self._call("evaluate")
        return {"eval_loss": 1.0}

    def save_model(self, output_dir):
        self._call("save_model")

    def create_model_card(self):
        self._call("create_model_card")

    def print(self, *args):
        print(*args)

    def end(self):
        self._call("end")


@pytest.fixture
def recorder(monkeypatch):
    class Fresh(Recorder):
        last = None

    monkeypatch.setattr(boost_trl, "BilevelOfflineRLTrainer", Fresh)
    return Fresh


@pytest.fixture
def train_path(tmp_path):
    rows = [episode(name, id=f"{name}{i}") for name in ("a", "b", "c", "d", "e") for i in range(6)]
    return write(tmp_path / "train.jsonl", rows)


@pytest.fixture
def run(tmp_path, train_path):
    def run(*flags):
        arguments = ["--model_name_or_path", tmp_path, "--dataset_name", train_path, "--output_dir", tmp_path / "out"]
        arguments += ["--use_cpu", "true", "--report_to", "none", *flags]
        return cli.main(["offline-rl", *map(str, arguments)])

    return run


def test_all_methods_train_on_the_same_rows(recorder, run):
    given = {}
    for method in ("boost", "validated", "vanilla"):
        assert run("--method", method, "--split_seed", 3, "--train_fraction", 0.5) == 0
        given[method] = recorder.last.given
    ids = {method: kwargs["train_dataset"]["id"][:] for method, kwargs in given.items()}
    assert ids["vanilla"] == ids["boost"] == ids["validated"]
    assert len(ids["vanilla"]) == 9 and len({name[0] for name in ids["vanilla"]}) <= 3  # half of 3 categories of 6
    assert given["vanilla"]["validation_dataset"] is None and given["boost"]["validation_dataset"] is not None
    assert given["vanilla"]["eval_dataset"]["id"][:] == given["boost"]["eval_dataset"]["id"][:]


def test_vanilla_trains_on_everything_where_nothing_is_held_out(recorder, run):
    assert run("--method", "vanilla", "--train_task_frac", 1) == 0
    assert len(recorder.last.given["train_dataset"]) == 30 and recorder.last.given["eval_dataset"] is None
    assert "evaluate" not in recorder.last.calls


def test_vanilla_takes_no_validation_file(recorder, run, train_path, capsys):
    assert run("--method", "vanilla", "--validation_dataset_name", train_path) == 2
    assert "`validation_dataset_name`" in capsys.readouterr().err and recorder.last is None


def test_games_are_played_on_the_held_out_tasks(recorder, run, tmp_path):
    held_out = [episode("a", task=task(name)) for name in ("x", "y", "x")] + [episode("a", task=None)]
    path = write(tmp_path / "eval.jsonl", held_out)
    assert run("--environment", "twenty_questions", "--eval_dataset_name", path) == 0
    assert [played.id for played in recorder.last.given["eval_tasks"]] == ["x", "y"]


@pytest.mark.parametrize("flags", [[], ["--method", "vanilla", "--train_task_frac", 1]])
def test_games_without_held_out_tasks_are_refused(recorder, run, capsys, flags):
    assert run("--environment", "twenty_questions", *flags) == 2
    complaint = capsys.readouterr().err
    assert "`eval_dataset_name`" in complaint and "`task`" in complaint and recorder.last is None


def test_the_model_is_saved_before_games_can_fail(recorder, run):
    assert run() == 0
    assert recorder.last.calls == ["train", "save_model", "evaluate", "create_model_card", "end"]
    recorder.fails_in = "evaluate"
    with pytest.raises(ValueError, match="evaluate broke"):
        run()
    assert "save_model" in recorder.last.calls


def test_training_keeps_its_traceback(recorder, run):
    recorder.fails_in = "train"
    with pytest.raises(ValueError, match="train broke"):
        run()


def test_the_former_names_of_the_data_work_and_warn(recorder, run, tmp_path):
    held_out = write(tmp_path / "held_out.jsonl", [episode("z")])
    more = write(tmp_path / "more.jsonl", [episode("y", source="synthetic")])
    with pytest.warns(FutureWarning, match="`validation_path` is now called `validation_dataset_name`"):
        assert run("--validation_path", held_out, "--eval_path", held_out, "--synthetic_path", more) == 0
    given = recorder.last.given
    assert given["validation_dataset"]["category"][:] == given["eval_dataset"]["category"][:] == ["z"]
    assert given["train_dataset"]["source"][:] == ["offline"] * 30 + ["synthetic"]


def test_adapter_and_quantisation_are_those_of_trls_model_config(recorder, run):
    assert run("--use_peft", "--lora_r", 4, "--use_rslora", "--load_in_4bit", "--dtype", "bfloat16") == 0
    peft, quantization = (recorder.last.given[name] for name in ("peft_config", "quantization_config"))
    assert (peft.r, peft.lora_alpha, peft.lora_dropout, peft.use_rslora) == (4, 32, 0.0, True)
    assert quantization.load_in_4bit and quantization.bnb_4bit_quant_type == "nf4"
    assert recorder.last.args.model_init_kwargs["dtype"] == "bfloat16"
    assert run("--model_init_kwargs", '{"dtype": "float16"}') == 0
    assert recorder.last.given["peft_config"] is recorder.last.given["quantization_config"] is None
    assert recorder.last.args.model_init_kwargs["dtype"] == "float16"


def test_splits_of_one_dataset(recorder, run, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name, category in (("train", "a"), ("trusted", "b"), ("test", "c")):
        write(folder / f"{name}.jsonl", [episode(category)])
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        + "".join(f"  - split: {name}\n    path: {name}.jsonl\n" for name in ("train", "trusted", "test"))
        + "---\n"
    )
    flags = ["--dataset_name", folder, "--dataset_validation_split", "trusted"]
    assert run(*flags, "--eval_strategy", "steps", "--eval_steps", 2) == 0
    given = recorder.last.given
    rows = (given["train_dataset"], given["validation_dataset"], given["eval_dataset"])
    assert [dataset["category"][:] for dataset in rows] == [["a"], ["b"], ["c"]]
    assert run(*flags) == 0 and recorder.last.given["eval_dataset"] is None


@pytest.mark.parametrize(
    "text, meaning", [("true", True), ("True", True), ("false", False), ("out/checkpoint-4", "out/checkpoint-4")]
)
def test_resume_from_checkpoint_is_a_folder_or_a_truth(recorder, run, text, meaning, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out/checkpoint-4").mkdir(parents=True)
    assert run("--resume_from_checkpoint", text) == 0
    assert recorder.last.resumed == meaning and type(recorder.last.resumed) is type(meaning)


ONE_TURN = {"prompt": "yes .", "completion": "old ?", "reward": 1, "category": "a"}


def test_rows_without_a_source_get_that_of_their_file(recorder, run, tmp_path):
    synthetic = write(tmp_path / "synthetic.jsonl", [ONE_TURN, episode("a", source=None, terminated=False)])
    assert run("--synthetic_dataset_name", synthetic) == 0
    rows = recorder.last.given["train_dataset"].to_list()
    assert [row["source"] for row in rows] == ["offline"] * 18 + ["synthetic"] * 2
    assert rows[-2] == {
        "messages": [{"role": "user", "content": "yes ."}, {"role": "assistant", "content": "old ?"}],
        "rewards": [1.0],
        "terminated": True,
        "category": "a",
        "source": "synthetic",
    }
    assert [row["terminated"] for row in rows] == [True] * 19 + [False]


def test_a_given_source_is_kept():
    offline = Dataset.from_list([episode("a", source="offline"), episode("a", source="synthetic")])
    joined = offline_rl.join_rows(("train.jsonl", "offline", offline), ("more.jsonl", "synthetic", offline))
    assert joined["source"][:] == ["offline", "synthetic"] * 2


def test_what_rows_pass_to_the_template_is_joined():
    tools = [{"type": "function", "function": {"name": name, "parameters": {name: 1}}} for name in ("look", "go")]
    first = Dataset.from_list([episode("a") | {"tools": tools[:1], "chat_template_kwargs": {"think": True}}])
    second = Dataset.from_list([episode("a") | {"tools": json.dumps(tools)}])
    third = Dataset.from_list([episode("a")])
    joined = offline_rl.join_rows(*((f"{i}.jsonl", "offline", rows) for i, rows in enumerate((first, second, third))))
    assert [None if cell is None else json.loads(cell) for cell in joined["tools"]] == [tools[:1], tools, None]
    assert joined["chat_template_kwargs"][:] == [{"think": True}, None, None]


@pytest.mark.parametrize(
    "row, complaint",
    [
        (episode(3), "more.jsonl, row 0, column `category`"),
        ({"prompt": "hi", "category": "a"}, "more.jsonl, row 0, column `messages`"),
    ],
)
def test_rows_that_cannot_be_joined_are_named(row, complaint):
    offline = Dataset.from_list([episode("a")])
    with pytest.raises(ValueError) as error:
        offline_rl.join_rows(
            ("train.jsonl", "offline", offline), ("more.jsonl", "synthetic", Dataset.from_list([row]))
        )
    assert complaint in str(error.value)
