"""The tables of README.md that are made of the code: every setting and every error code.

``python -m tasks.reference`` writes them into the README; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from tasks.errors import AiiError, advice, kinds
from tasks.settings import Settings
from tasks.state_folder import OTHER_VARIABLES

__all__ = ["README", "error_table", "setting_table", "with_tables"]

README: Final = Path(__file__).with_name("README.md")


def setting_table() -> str:
    """One row for each variable that is read from the environment."""
    rows = [
        (f"`AII_{name.upper()}`", _shown(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    others = [(f"`{name}`", default, text) for name, (default, text) in OTHER_VARIABLES.items()]
    return _table(("variable", "default", "meaning"), [*rows, *others])


def error_table() -> str:
    """One row for each code and class, by the tree."""
    rows = []
    for kind in sorted(kinds(), key=_place):
        when, what_to_do = advice(kind)
        rows.append((f"`{kind.code}`", f"`{kind.__name__}`", "yes" if kind.retryable else "", when, what_to_do))
    return _table(("code", "class", "retried", "raised when", "what to do"), rows)


def with_tables(text: str) -> str:
    """A README with the tables between its markers made anew."""
    for name, table in (("settings", setting_table()), ("errors", error_table())):
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        text = f"{before}{begin}\n{table}\n{end}{after}"
    return text


def _place(kind: type[AiiError]) -> tuple[str, ...]:
    """The names from the root to the class: a class follows its parent."""
    return tuple(base.__name__ for base in reversed(kind.__mro__) if issubclass(base, AiiError))


def _shown(default: Any) -> str:
    value = default.get_secret_value() if isinstance(default, SecretStr) else default
    return "" if value in ("", ()) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    def lines() -> Iterator[str]:
        yield f"| {' | '.join(head)} |"
        yield "|---" * len(head) + "|"
        for row in rows:
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"

    return "\n".join(lines())


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
