"""Run by `test_killed_runs.py`: trainings in processes of their own, forked from this one, of which one kills itself with signal 9
at a drawn event: a file that is opened to be written, the start of an update, a call of `generate`.

`killed_runs.py FOLDER KIND` writes `FOLDER/result.json`: what the uninterrupted run, the one that was killed again and again, and those that
went on otherwise end with."""

import json
import os
import random
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import torch
from offline_rl.offline_rl_two_processes import make_trainer as make_offline_rl
from sft_tiny import make_args, make_model, make_pairs, make_tokenizer
from transformers import LlamaForCausalLM, TrainerCallback

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 8, "save_total_limit": 2}


def make_sft(folder, num_processes, accumulation):
    per_device = 8 // num_processes // accumulation
    return BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0),
        make_args(
            folder,
            per_device_train_batch_size=per_device,
            per_device_validation_batch_size=per_device,
            gradient_accumulation_steps=accumulation,
            rho_init=0.5,
            online_ratio=0.4,
            generation_interval=2,
            generation_batch_size=4,
            max_generation_length=6,
            ddp_backend="gloo" if num_processes > 1 else None,
            **SAVING,
        ),
        train_dataset=make_pairs(24),
        processing_class=make_tokenizer(),
        validation_dataset=make_pairs(5),
    )


def make(kind, folder, num_processes, accumulation=2):
    if kind == "sft":
        return make_sft(folder, num_processes, accumulation)
    sizes = {
        "gradient_accumulation_steps": accumulation,
        "per_device_train_batch_size": 8 // num_processes // accumulation,
    }
    sizes["validation_rows"] = 4 // accumulation
    own = {"output_dir": str(folder), "cache_dir": str(folder.parent / "cache")}
    return make_offline_rl(folder.parent, "ilql", num_processes, **SAVING, **sizes, **own)


class KillAt:
    """Counts events of each kind, and kills this process at one of them, or up to 30 ms later."""

    def __init__(self, folder, what=None, number=0, delay=0):
        self.folder, self.counts = str(folder), Counter()
        self.what, self.number, self.delay = what, number, delay

    def happens(self, what):
        self.counts[what] += 1
        if what == self.what and self.counts[what] == self.number:
            if self.delay:
                threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    def install(self, trainer):
        def audit(event, args):
            if event == "open" and str(args[0]).startswith(self.folder + "/") and args[2] & (os.O_WRONLY | os.O_RDWR):
                self.happens("save")
            if event in ("os.remove", "shutil.rmtree") and str(args[0]).startswith(self.folder + "/"):
                self.happens("remove")

        sys.addaudithook(audit)
        killer = self

        class Updates(TrainerCallback):
            def on_step_begin(self, *args, **kwargs):
                killer.happens("update")

        trainer.add_callback(Updates())
        generate = LlamaForCausalLM.generate

        def counted(*args, **kwargs):
            killer.happens("generate")
            return generate(*args, **kwargs)

        LlamaForCausalLM.generate = counted


def run(kind, folder, num_processes, accumulation=2, kill=None):
    """A run of `num_processes`, which goes on from what `folder` has; `False` if one killed itself.

    Args:
        kill: (rank, kind of event, its number, delay) of the one to kill.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = {}
    for rank in range(num_processes):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                train(kind, folder, num_processes, accumulation, rank, port, kill)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children[child] = rank
    killed = False
    while children:
        child, status = os.wait()
        children.pop(child)
        if os.WIFSIGNALED(status):
            killed = True
            for other in children:
                os.kill(other, signal.SIGKILL)
        elif status and not killed:
            # The other process is gone, of which this one has heard first.
            time.sleep(1)
            if not children or kill is None:
                raise RuntimeError(f"a process of {folder} failed")
    return not killed


def train(kind, folder, num_processes, accumulation, rank, port, kill):
    if num_processes > 1:
        where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
        os.environ |= {name: str(value) for name, value in where.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    trainer = make(kind, folder, num_processes, accumulation)
    killer = KillAt(folder, *(kill[1:] if kill is not None and kill[0] == rank else ()))
    killer.install(trainer)
    whole = [path for path in folder.glob("checkpoint-*") if trainer.why_incomplete(path) is None]
    if num_processes > 1:
        torch.distributed.barrier()
    trainer.train(resume_from_checkpoint=bool(whole))
    if rank == 0:
        result = {
            "parameters": [p.detach().double().flatten().tolist() for p in trainer.model.parameters()],
            "weights": trainer.example_weights()["weight"][:],
            "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
            "steps": trainer.state.global_step,
        }
        Path(f"{folder}.json").write_text(json.dumps(result))
    Path(f"{folder}.count{rank}").write_text(json.dumps(killer.counts))


def result(folder):
    return json.loads(Path(f"{folder}.json").read_text())


def main(folder, kind, num_processes, num_kills, seed):
    """Writes results of "straight", "killed" and what each kill met; for one process also of runs that go on otherwise."""
    draw = random.Random(f"{kind}/{num_processes}/{seed}")
    straight = folder / "straight"
    assert run(kind, straight, num_processes)
    counts = [json.loads(Path(f"{straight}.count{rank}").read_text()) for rank in range(num_processes)]
    killed, met = folder / "killed", []
    while len(met) < num_kills:
        rank = draw.randrange(num_processes)
        what = draw.choice(sorted(counts[rank]))
        number, delay = draw.randrange(1, counts[rank][what] + 1), draw.choice([0, 0.03 * draw.random()])
        if run(kind, killed, num_processes, kill=(rank, what, number, delay)):
            # Part of the run was done when it went on, and the event did not come any more.
            shutil.rmtree(killed)
        else:
            met.append(what)
    assert run(kind, killed, num_processes)
    results = {"straight": result(straight), "killed": result(killed)}
    if num_processes == 1:
        last = sorted(straight.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[0]
        for name, processes, accumulation in (("moved", 1, 2), ("two processes", 2, 2), ("accumulation", 1, 4)):
            shutil.copytree(last, folder / name / last.name)
            assert run(kind, folder / name, processes, accumulation)
            results[name] = result(folder / name)
    Path(folder, "result.json").write_text(json.dumps({"results": results, "events": met}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
