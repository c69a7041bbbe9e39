"""Arrows between rooms go down only, and the light rooms load nothing heavy."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import limit_lab
from limit_lab.config import Study
from limit_lab.overrides import candidates

PACKAGE = Path(limit_lab.__file__).resolve().parent

#: From the bottom to the top; a room imports from its own line or from a lower one.
LAYERS = (
    ("errors", "interruption"),
    ("durations", "fingerprints"),
    ("recipe", "hardware", "launch", "suite"),
    ("config",),
    ("stats", "provenance", "progress", "couples"),
    ("store", "told"),
    ("tracking", "trainings"),
    ("overrides",),
    ("compose",),
    ("hub",),
    ("prompt", "shapes"),
    ("operations", "layout", "memory"),
    ("room",),
    ("lookup",),
    ("estimate",),
    ("model",),
    ("mixture", "finetune", "gauntlet", "judge", "microworld"),
    ("preflight",),
    ("mixtures", "plan", "report", "frozen", "dashboard"),
    ("grid", "kept", "trainings", "model_card", "handover"),
    ("fine_tuning", "evaluating"),
    ("ranks",),
    ("cell",),
    ("side_by_side", "status", "diff", "jobs", "harness"),
    ("items",),
    ("sweep",),
    ("study",),
    ("help",),
    ("__main__",),
)
RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
LIGHT = (
    "config",
    "fingerprints",
    "plan",
    "grid",
    "store",
    "stats",
    "tracking",
    "dashboard",
    "diff",
    "harness",
    "report",
    "judge",
    "prompt",
    "compose",
    "preflight",
    "memory",
    "lookup",
    "room",
    "shapes",
    "layout",
    "hub",
    "help",
    "items",
    "status",
    "sweep",
    "__main__",
)
HEAVY = ("torch", "lightning", "transformers", "deepspeed", "submitit", "ray", "lm_eval")


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            yield room, path


def imported(path: Path) -> Iterator[str]:
    """Rooms that a module imports when it is loaded; imports inside functions and for type checkers do not count."""
    pending: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If):
            pending += node.orelse if "TYPE_CHECKING" in ast.unparse(node.test) else node.body + node.orelse
        elif isinstance(node, ast.Try):
            pending += node.body + node.orelse + node.finalbody + [line for handler in node.handlers for line in handler.body]
        elif isinstance(node, ast.ClassDef | ast.With):
            pending += node.body
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("limit_lab."))
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "limit_lab":
                yield from (name.name for name in node.names if not name.name.startswith("__"))
            elif node.module.startswith("limit_lab."):
                yield node.module.split(".")[1]


def edges() -> set[tuple[str, str]]:
    return {(room, other) for room, path in modules() for other in imported(path) if other != room}


def test_every_room_has_its_place() -> None:
    assert {room for room, _ in modules()} <= set(RANK), "give the new room its line in LAYERS, and in the design"


def test_arrows_go_down() -> None:
    assert not [edge for edge in edges() if RANK[edge[0]] < RANK[edge[1]]]


def test_rooms_form_no_circle() -> None:
    left = edges()
    while left:
        ends = {other for _, other in left} - {room for room, _ in left}
        assert ends, f"these rooms import each other: {sorted(left)}"
        left = {edge for edge in left if edge[1] not in ends}


def test_evaluation_never_sees_a_trainer() -> None:
    assert not {("gauntlet", "finetune"), ("judge", "finetune"), ("report", "finetune")} & edges()


def test_no_relative_imports() -> None:
    for _, path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level], path


def test_light_rooms_load_nothing_heavy() -> None:
    lines = [f"import limit_lab.{room}" for room in LIGHT]
    code = "; ".join(["import sys", *lines, f"print([name for name in {HEAVY} if name in sys.modules])"])
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def assignments(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Attributes that are assigned to, ``self.x`` excepted."""
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = list(node.targets)
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                part = part.value if isinstance(part, ast.Subscript) else part
                if isinstance(part, ast.Attribute) and not (isinstance(part.value, ast.Name) and part.value.id == "self"):
                    yield part


@pytest.mark.parametrize(("room", "path"), list(modules()), ids=lambda value: str(getattr(value, "stem", value)))
def test_nobody_assigns_to_a_composed_configuration(room: str, path: Path) -> None:
    """A study is read, never changed: no target ``….<field of a configuration class>``, no setattr on one."""
    fields = {name.rpartition(".")[2] for name in candidates([])}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if room in ("model", "finetune"):
        fields -= {"data"}  # tensors have one too, and these rooms never see a study's
    found = [ast.unparse(target) for target in assignments(tree) if target.attr in fields]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found += [ast.unparse(call) for call in calls if ast.unparse(call.func) in ("setattr", "object.__setattr__")]
    assert not found, f"{room}: {found}"


def test_the_fields_are_those_of_the_schema() -> None:
    assert {"learning_rate", "max_new_tokens", "shots", "kind"} <= {name.rpartition(".")[2] for name in candidates([])}
    assert "mixture" in Study.__dataclass_fields__
