"""The shape of the source defends itself: floors, sizes, the lone root package, a light import."""

from __future__ import annotations

import ast
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import muster

SRC = Path(__file__).parents[2] / "src"
FLOORS = [
    {"errors"},
    {"model"},
    {"wire"},
    {"serialize"},  # packs its buffers with wire.packing
    {"transport", "store", "rest", "worker", "config"},
    {"broker", "engine"},
    {"sdk", "endpoint", "manager", "service", "identity"},
    {"testing"},
    {"cli"},
]
ROOT_BUDGET_LINES, ROOT_PHYSICAL_LINES, BECOME_LINES = 500, 700, 80  # see docs/decisions/0015
FUNCTION_LIMIT, FUNCTION_NEVER, MODULE_LIMIT, NESTING_LIMIT = 40, 60, 400, 4
FILES = sorted(p for p in SRC.rglob("*.py"))
MUSTER = [p for p in FILES if p.is_relative_to(SRC / "muster") and p != SRC / "muster" / "__init__.py"]
ROOT = sorted((SRC / "muster_root").glob("*.py"))


def floor(part: str) -> int:
    return next(i for i, parts in enumerate(FLOORS) if part in parts)


def part_of(file: Path) -> str:
    return file.relative_to(SRC / "muster").parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def shown(file: Path) -> str:
    return str(file.relative_to(SRC))


@pytest.mark.parametrize("file", MUSTER, ids=shown)
def test_imports_only_go_down(file: Path) -> None:
    here = part_of(file)
    used = {name.split(".")[1] for name in imports(file) if name.startswith("muster.")} - {here, *muster.__all__}
    assert not {part for part in used if floor(part) >= floor(here)}


@pytest.mark.parametrize("file", [p for p in MUSTER if part_of(p) != "cli"], ids=shown)
def test_only_commands_know_the_root_side(file: Path) -> None:
    assert not [name for name in imports(file) if name.split(".")[0] == "muster_root"]


@pytest.mark.parametrize("file", ROOT, ids=shown)
def test_the_root_side_stands_alone(file: Path) -> None:
    assert {name.split(".")[0] for name in imports(file)} <= sys.stdlib_module_names | {"muster_root"}


def code_lines(file: Path) -> int:
    """Lines with code on them: reasons and blank lines cost nothing, or they would be the first to go."""
    unseen = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    said: set[int] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            said |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    with tokenize.open(file) as text:
        tokens = [token for token in tokenize.generate_tokens(text.readline) if token.type not in unseen]
    return len({line for token in tokens for line in range(token.start[0], token.end[0] + 1)} - said)


def test_the_root_side_keeps_its_budget() -> None:
    lines = {shown(file): len(file.read_text().splitlines()) for file in ROOT}
    code = {shown(file): code_lines(file) for file in ROOT}
    assert sum(code.values()) <= ROOT_BUDGET_LINES, code
    assert sum(lines.values()) <= ROOT_PHYSICAL_LINES, lines
    assert lines["muster_root/become.py"] <= BECOME_LINES


@pytest.mark.parametrize("file", FILES, ids=shown)
def test_modules_and_functions_stay_small(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= MODULE_LIMIT
    too_long, too_deep = [], []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LIMIT:
                too_long.append((node.name, lines))
            if nesting(node) > NESTING_LIMIT:
                too_deep.append((node.name, nesting(node)))
    assert not too_long
    assert not too_deep


def nesting(function: ast.AST) -> int:
    blocks = (ast.For, ast.AsyncFor, ast.While, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.Match)

    def depth(node: ast.AST, inside: int) -> int:
        deepest = inside
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
                continue
            # `elif` is an If inside orelse: it reads as the same level
            alike = isinstance(node, ast.If) and child in node.orelse and len(node.orelse) == 1
            deeper = isinstance(child, blocks) and not (alike and isinstance(child, ast.If))
            deepest = max(deepest, depth(child, inside + deeper))
        return deepest

    return depth(function, 0)


@pytest.mark.parametrize("file", FILES, ids=shown)
def test_nothing_is_left_unfinished(file: Path) -> None:
    text = file.read_text()
    for mark in ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"):
        assert mark not in text


@pytest.mark.parametrize("file", FILES, ids=shown)
def test_public_names_say_what_they_promise(file: Path) -> None:
    tree = ast.parse(file.read_text())
    silent = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not silent
    assert not tree.body or ast.get_docstring(tree), "a module opens with what it is"


def test_import_muster_is_light() -> None:
    heavy = ("parsl", "starlette", "pika", "sqlalchemy", "dill", "rich", "click", "asyncio", "http.client")
    code = f"import sys, muster; print([m for m in {heavy!r} if m in sys.modules])"
    seen = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_the_executor_loads_no_server_part() -> None:
    heavy = ("parsl", "starlette", "uvicorn", "sqlalchemy", "jinja2", "yaml", "pamqp", "authlib")
    code = f"import sys; from muster import Executor, Client; print([m for m in {heavy!r} if m in sys.modules])"
    seen = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
