"""Reads the source of the package: what imports what, circles among it, and how branchy each function is."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dfssd"
DOORSTEP = {("dfssd", "__version__")}
"""What all modules may import from the package itself: defined at the top of the file, before any import."""


def sources() -> list[Path]:
    """Python files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    """Syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


class _WithoutTypeChecking(ast.NodeTransformer):
    """Leaves out the body of ``if TYPE_CHECKING:``."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse
        return self.generic_visit(node)


def imported(path: Path, *, types: bool = True) -> set[str]:
    """Dotted names of what a file imports, anywhere in it: modules, and ``module.name`` for names out of modules.

    Args:
        path: The file.
        types: Count what is imported for type checking alone.
    """
    code, found = tree(path), set()
    if not types:
        code = _WithoutTypeChecking().visit(code)
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            found |= {f"{node.module}.{a.name}" for a in node.names if (node.module, a.name) not in DOORSTEP}
    return found


def module_name(path: Path, root: Path = ROOT) -> str:
    """``dfssd.files`` of ``dfssd/files.py``, ``dfssd`` of ``dfssd/__init__.py``."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def import_graph(paths: list[Path], root: Path = ROOT, *, types: bool = True) -> dict[str, set[str]]:
    """Modules of those files -> other ones of them that they import, also in functions; ``types`` as above."""
    names = {module_name(path, root): path for path in paths}
    graph = {}
    for name, path in names.items():
        arrows = {full if full in names else full.rpartition(".")[0] for full in imported(path, types=types)}
        graph[name] = arrows & set(names) - {name}
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    """Groups of nodes that reach each other, each sorted."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        queue = [start]
        while queue:
            new = graph[queue.pop()] - seen
            seen |= new
            queue += new
        return seen

    reach = {node: reached(node) for node in graph}
    return sorted({tuple(sorted(m for m in reach[node] if node in reach[m])) for node in graph if node in reach[node]})


BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert, ast.match_case)


def complexity(function: ast.AST) -> int:
    """Cyclomatic complexity: 1, plus 1 a branch, loop, handler, assertion, case, and/or, comprehension and its ifs.

    What is defined inside a function counts for it, too.
    """
    total = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            total += 1
        elif isinstance(node, ast.BoolOp):
            total += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            total += 1 + len(node.ifs)
    return total


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Functions and methods of a module or class with their dotted names; not those inside of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{prefix}{child.name}", child
        elif isinstance(child, ast.ClassDef):
            yield from functions(child, f"{prefix}{child.name}.")
