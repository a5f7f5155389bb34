"""Figures as a table while they come, and all of them as JSON at the end."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

_LABEL_WIDTH = 34
_COLUMN_WIDTH = 13


@dataclass(frozen=True)
class Target:
    """Be what a figure is held to."""

    bound: float
    sign: str
    """">=" or "<="."""

    @classmethod
    def at_least(cls, bound: float) -> Self:
        """Demand `bound` or more."""
        return cls(bound, ">=")

    @classmethod
    def at_most(cls, bound: float) -> Self:
        """Demand `bound` or less."""
        return cls(bound, "<=")

    def is_met(self, value: float) -> bool:
        """Say whether `value` will do."""
        return value >= self.bound if self.sign == ">=" else value <= self.bound


@dataclass(frozen=True)
class Verdict:
    """Be a target and whether a figure meets it."""

    target: Target
    is_met: bool

    def __str__(self) -> str:
        """Say it in a table."""
        return f"{self.target.sign} {self.target.bound:g} {'met' if self.is_met else 'MISSED'}"


@dataclass
class Report:
    """Print sections of rows, and keep them."""

    facts: dict[str, Any] = field(default_factory=dict)
    sections: list[dict[str, Any]] = field(default_factory=list)
    _formats: Mapping[str, str] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Print a line that belongs to no table, and keep it."""
        self.facts.setdefault("notes", []).append(text)
        print(text, flush=True)

    def section(self, title: str, formats: Mapping[str, str]) -> None:
        """Begin a table; `formats` has each column's name and how its figures are written."""
        self._formats = formats
        self.sections.append({"title": title, "rows": []})
        names = "".join(f"{name:>{_COLUMN_WIDTH}}" for name in formats)
        print(f"\n{title}\n{'':{_LABEL_WIDTH}}{names}", flush=True)

    def row(
        self,
        label: str,
        figures: Mapping[str, float],
        targets: Mapping[str, Target] | None = None,
        remark: str = "",
    ) -> None:
        """Print a row, and for each figure that has a target whether it is met."""
        verdicts = {
            name: Verdict(target, target.is_met(figures[name]))
            for name, target in (targets or {}).items()
        }
        row: dict[str, Any] = {"label": label, "figures": dict(figures), "remark": remark}
        row["targets"] = {name: asdict(verdict) for name, verdict in verdicts.items()}
        self.sections[-1]["rows"].append(row)
        cells = "".join(
            f"{format(figures[name], spec) if name in figures else '':>{_COLUMN_WIDTH}}"
            for name, spec in self._formats.items()
        )
        remarks = [f"{name} {verdict}" for name, verdict in verdicts.items()]
        said = "; ".join([*remarks, *([remark] if remark else [])])
        print(f"{label:{_LABEL_WIDTH}}{cells}   {said}".rstrip(), flush=True)

    def save(self, path: Path) -> None:
        """Write all of it as JSON."""
        path.write_text(json.dumps({**self.facts, "sections": self.sections}, indent=2) + "\n")
