"""What can be seen of a user's function without calling it: the names it mentions, what it closes over, whose it is."""

from __future__ import annotations

import sysconfig
import types

INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def names_in(code: types.CodeType) -> list[str]:
    """The global names that code and the functions inside it mention, sorted.

    >>> names_in((lambda text: [len(part) for part in sorted(text)]).__code__)
    ['len', 'sorted']
    """
    inner = [name for one in code.co_consts if isinstance(one, types.CodeType) for name in names_in(one)]
    return sorted({*code.co_names, *inner})


def cells_of(function: types.FunctionType) -> dict[str, types.CellType]:
    """What a function closes over, by name; without cells that hold nothing yet.

    >>> def outer(): count = 3; return lambda: count
    >>> {name: cell.cell_contents for name, cell in cells_of(outer()).items()}
    {'count': 3}
    """
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell for name, cell in cells if _is_filled(cell)}


def is_installed(module: types.ModuleType | None) -> bool:
    """Whether a module is of Python itself or of an installed package; False where there is none.

    >>> is_installed(types), is_installed(None)
    (True, False)
    """
    if module is None:
        return False
    file = getattr(module, "__file__", None)
    return module.__name__ != "__main__" if file is None else file.startswith(INSTALLED)


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  to see whether it can be read
    except ValueError:
        return False
    return True
