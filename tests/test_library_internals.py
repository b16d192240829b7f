"""Every name of TRL, transformers, accelerate and torch that the package uses and that they do not promise to keep. After an upgrade a
failure here says which one has moved, who uses it, and what it was for; `trainer/common/test_library_seams.py` has the methods that the
trainers override, with their parameters.
"""

import ast
import inspect
import re
import textwrap
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import peft
import pytest
import torch
import transformers
import trl

import boost_trl
from boost_trl import BilevelDPOTrainer, BilevelOfflineRLTrainer, BilevelSFTSelfRefineTrainer


PACKAGE = Path(boost_trl.__file__).parent
LIBRARIES = ("accelerate", "datasets", "huggingface_hub", "peft", "torch", "transformers", "trl")
TRAINERS = [
    (BilevelOfflineRLTrainer, transformers.Trainer),
    (BilevelSFTSelfRefineTrainer, trl.SFTTrainer),
    (BilevelDPOTrainer, trl.DPOTrainer),
]
# Private name -> the class or module that has it, and what we use it for.
PRIVATE = {
    "_assert_async": (torch, "check ids on the device without waiting for it"),
    "_formatting_func": (trl.SFTTrainer, "prepare validation rows as TRL prepares the pool"),
    "_get_num_items_in_batch": (transformers.Trainer, "what TRL divides the loss of a batch by"),
    "_get_output_dir": (transformers.Trainer, "where a checkpoint is about to be written"),
    "_name_or_path": (transformers.PreTrainedConfig, "where a model came from"),
    "_prepare_inputs": (transformers.Trainer, "move batches that Trainer has not loaded to the device"),
    "_remove_unused_columns": (transformers.Trainer, "read rows as the training loader does"),
    "_signature_columns": (transformers.Trainer, "keep the column of row numbers"),
    "_skip_prepare_dataset": (trl.SFTTrainer, "leave rows alone that TRL leaves alone"),
    "_tokenizer": (trl.SFTTrainer, "the tokenizer of a processor"),
    "_tp_size": (trl.DPOTrainer, "refuse tensor parallelism with a validation set"),
    "_train_batch_size": (transformers.Trainer, "rows of a micro-batch, also after `auto_find_batch_size`"),
    "_metrics": (trl.SFTTrainer, "log ours beside TRL's, as means over the steps between two logs"),
}
# What our trainers set for the libraries' code to read, or set in its place.
SHARED = {
    "_name": "the method in TRL's model card",
    "_paper": "the citation in TRL's model card",
    "_tag_names": "the Hub's tags in TRL's model card",
    "_total_train_tokens": "`num_tokens`, which counts validation tokens as well",
    "completion_only_loss": "of the validation set while it is prepared",
    "control": "what callbacks return",
    "data_collator": "ours, which keeps row numbers",
    "loss_is_scaled_for_ga": "Trainer does not divide a loss again",
    "train_dataset": "the rows that are left",
}


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def imports():
    """(file, module, name) of every import from the libraries, those in functions and for type checkers included."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in LIBRARIES:
                yield from ((path.name, node.module, alias.name) for alias in node.names)


def defined_names() -> set[str]:
    """All that the package itself calls by some name: classes, functions, fields, variables and attributes that it sets."""
    names = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return names


def classes_of(trainer, *packages: str) -> list[type]:
    return [kind for kind in trainer.__mro__ if kind.__module__.split(".")[0] in packages]


@cache
def source_of(library) -> str:
    """The source of a module, or of a class with those that it is made of."""
    if inspect.ismodule(library):
        return ""
    kinds = classes_of(library, *LIBRARIES)
    return "\n".join(textwrap.dedent(inspect.getsource(kind)) for kind in kinds)


def has(library, name: str) -> bool:
    return hasattr(library, name) or re.search(rf"\bself\.{name}\b.*=", source_of(library)) is not None


def own_and_read(trainer) -> tuple[set[str], set[str]]:
    """Names that our classes of a trainer define or set on `self`, and those that they read of it."""
    own, read = set(), set()
    for kind in classes_of(trainer, "boost_trl"):
        own |= {*vars(kind), *vars(kind).get("__annotations__", {})}
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind)))):
            is_of_self = isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()")
            if is_of_self:
                (own if isinstance(node.ctx, ast.Store) else read).add(node.attr)
    return own, read


def test_all_that_is_imported_is_there():
    gone = []
    for file, module, name in imports():
        try:
            found = hasattr(import_module(module), name) or find_spec(f"{module}.{name}") is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            gone.append(f"{file} imports `{name}` from `{module}`, where it is no more: see what took its place")
    assert not gone, "\n".join(gone)


@pytest.mark.parametrize("name", PRIVATE)
def test_private_names_are_there(name):
    library, purpose = PRIVATE[name]
    assert has(library, name), f"{library.__name__}.{name} is gone, by which we {purpose}: see what took its place"


def test_the_table_of_private_names_is_whole():
    ours = defined_names()
    used = {}
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr) and node.attr not in ours:
                used.setdefault(node.attr, path.name)
    used.pop("_asdict")  # a promised one, of named tuples
    for trainer, library in TRAINERS:
        own, read = own_and_read(trainer)
        used |= {name: trainer.__name__ for name in read - own if re.match("_[a-z]", name) and has(library, name)}
    unnamed = {name: where for name, where in used.items() if name not in PRIVATE}
    assert not unnamed, f"name these in PRIVATE, with what they are for: {unnamed}"
    left_over = PRIVATE.keys() - used.keys()
    assert not left_over, f"nothing uses these any more: {left_over}"


@pytest.mark.parametrize("trainer, library", TRAINERS)
def test_all_that_a_trainer_reads_of_itself_is_ours_or_there(trainer, library):
    own, read = own_and_read(trainer)
    gone = sorted(name for name in read - own if not has(library, name))
    assert not gone, f"{library.__name__} has no {gone} any more, which {trainer.__name__} reads"


def test_attributes_that_are_ours_and_the_libraries():
    shared = set()
    for trainer, library in TRAINERS:
        stored = {
            name
            for kind in classes_of(trainer, "boost_trl")
            for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind))))
            for name in stored_names(node)
        }
        shared |= {name for name in stored if re.search(rf"\bself\.{name}\b", source_of(library))}
    new = shared - SHARED.keys()
    assert not new, f"the libraries have come to use these names, which our trainers set for themselves: {new}"
    assert not SHARED.keys() - shared, (
        f"the libraries no longer read {SHARED.keys() - shared}: see what took their place"
    )


def stored_names(node: ast.AST):
    """Names that a statement sets on `self`, or in the body of a class."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
        yield node.attr
    if isinstance(node, ast.ClassDef):
        for statement in node.body:
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_adapters_are_told_apart_by_what_peft_calls_them():
    """`selected_adapters`, `active_peft_config` and `is_prompt_learning`: what is saved, and what is refused."""
    assert "selected_adapters" in inspect.signature(peft.PeftModel.save_pretrained).parameters
    assert has(peft.PeftModel, "active_peft_config") and hasattr(peft.PeftConfig, "is_prompt_learning")
