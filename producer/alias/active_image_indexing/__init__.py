"""The producer under one name of its own, for projects that have a `tasks` or a `producer` themselves.

    from active_image_indexing import Producer

What is loaded is the code of the packages `producer` and `tasks`, as `active_image_indexing.producer` and
`active_image_indexing.tasks`: their imports of each other are read as imports below this package. Nothing is looked up
under the names `producer` and `tasks`, whichever comes first on the path.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

_OURS = ("producer", "tasks")


def _root() -> Path:
    """The folder in which both packages are: beside this one once it is installed, above it in a checkout."""
    here = Path(__file__).resolve().parent
    return next(folder for folder in here.parents if (folder / "tasks" / "identity.py").is_file())


class _Rename(ast.NodeTransformer):
    """Imports of our packages, as imports below this one."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if not node.level and node.module and node.module.partition(".")[0] in _OURS:
            node.module = f"{__name__}.{node.module}"
        return node


class _Loader(SourceFileLoader):
    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:
        tree = _Rename().visit(ast.parse(data, path))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def path_stats(self, path: Any) -> Any:
        raise OSError("the bytecode beside the source is that of the other name")


class _Finder(MetaPathFinder):
    def __init__(self, root: Path) -> None:
        self._root = root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != __name__ or name.partition(".")[0] not in _OURS:
            return None
        place = self._root.joinpath(*name.split("."))
        if (file := place / "__init__.py").is_file():
            folders = [str(place)]
            return spec_from_file_location(
                fullname, file, loader=_Loader(fullname, str(file)), submodule_search_locations=folders
            )
        file = place.with_suffix(".py")
        return spec_from_file_location(fullname, file, loader=_Loader(fullname, str(file))) if file.is_file() else None


sys.meta_path.insert(0, _Finder(_root()))
_producer = import_module(f"{__name__}.producer")
__all__ = list(_producer.__all__)


def __getattr__(name: str) -> Any:
    return getattr(_producer, name)
