"""Log of a training: `log.csv`, a row for each step, and `validation.csv`, a row for each validation.

Rows are appended whole and reach the file at once. A training that goes on from step s drops the rows after s, and a
row that a crash has cut, so that the files read as if it had never stopped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tilesseg.atomic_write import published
from tilesseg.errors import StoreError, cannot

LOG, VALIDATION = "log.csv", "validation.csv"
STEP_COLUMNS = ("step", "loss", "rate", "seconds")

Row = Mapping[str, object]


class TrainingTable:
    """A CSV file whose first column is the step."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)

    def append(self, row: Row) -> None:
        """Append a row, whose columns are those of the table; a column that is None is left empty.

        Raises:
            StoreError: the file cannot be written.
        """
        self._write(_text([[_shown(row[column]) for column in self.columns]]))

    def go_on_from(self, step: int) -> None:
        """Keep the rows up to a step alone, or begin the file.

        Raises:
            StoreError: the file cannot be read or written.
        """
        kept = [row for row in self._rows() if int(row[0]) <= step]
        try:
            with published(self.path) as temporary:
                temporary.write_text(_text([self.columns, *kept]), encoding="utf-8")
        except OSError as error:
            raise self._refusal(error) from None

    def read(self) -> list[dict[str, str]]:
        """All whole rows, by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self._rows()]

    def _rows(self) -> list[list[str]]:
        """Whole rows without the header: of all columns, and with the end of their line."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
        return [row for row in rows[1:] if len(row) == len(self.columns) and row[0].isdigit()]

    def _write(self, text: str) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: OSError) -> StoreError:
        return StoreError(cannot(f"write {self.path}", error, "make room and run the same command again"))


def read_curves(folder: Path) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Loss of each step, and score of each validation, of the training in a folder, each with its step."""
    found = []
    for name, column in ((LOG, "loss"), (VALIDATION, "score")):
        path = folder / name
        rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8") if path.exists() else ""))
        found.append([(int(row["step"]), float(row[column])) for row in rows])
    return found[0], found[1]


def _text(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _shown(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
