"""Tells a person what is going on, step by step: live bars on a terminal, one line a step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

Show = Callable[[str, float], None]
"""What a step calls with what it does now, and its share done from 0 to 1."""


class Narrator:
    """A context over the steps named `titles`, which happen in that order."""

    def __init__(self, console: Console, titles: Sequence[str]) -> None:
        self._console = console
        self._width = max(map(len, titles))
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("[bold]{task.fields[title]}[/bold]", table_column=Column(width=self._width, no_wrap=True)),
            BarColumn(bar_width=10),
            TimeElapsedColumn(),
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=console,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._titles = titles

    def __enter__(self) -> Narrator:
        if self._console.is_terminal:
            self._bars.start()
            for title in self._titles:
                self._tasks[title] = self._bars.add_task("", total=1.0, start=False, title=title)
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def step(self, title: str) -> Iterator[Show]:
        """One step; what it said last stays."""
        if title in self._tasks:
            task = self._tasks[title]
            self._bars.start_task(task)
            yield lambda said, share: self._bars.update(task, description=said, completed=min(1.0, share))
            return
        last, started_s = [""], time.monotonic()
        yield lambda said, _share: last.__setitem__(0, said)
        took_s = time.monotonic() - started_s
        self._console.print(f"{title:<{self._width}}  {took_s:5.1f} s  {last[0]}", soft_wrap=True, highlight=False)
