"""Functions in processes of their own, forked from a server that imports the trainers once: each would take seconds to do so itself."""

import importlib
import json
import multiprocessing
import os
import socket
from unittest.mock import patch

import torch.multiprocessing


IMPORTED = ["boost_trl.trainer.bilevel_offline_rl_trainer", "boost_trl.trainer.bilevel_dpo_trainer"]


def run(script, *arguments, processes=1, **environment):
    """`main(*arguments)` of a module of these tests in as many processes, with the variables that a launcher sets.

    Raises:
        ProcessRaisedException: with its traceback, where one fails.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.set_forkserver_preload(IMPORTED)
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # The server starts with the first call, and its environment is that of all.
    with patch.dict(os.environ, CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1"):
        torch.multiprocessing.start_processes(
            _run, (script, arguments, processes, environment), nprocs=processes, start_method="forkserver"
        )


def _run(rank, script, arguments, processes, environment):
    if processes > 1:
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    os.environ |= environment
    importlib.import_module(script).main(*arguments)


def launch_two_processes(script, folder, *names):
    """What `main(folder, *names)` of a module writes to `folder/rank{rank}.json` on either of two processes."""
    run(script, folder, *names, processes=2, BOOST_TRL_CACHE=str(folder / "cache"))
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
