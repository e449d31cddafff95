"""What a run says: lines on the terminal and in ``log.txt``, and a progress bar where somebody looks."""

from __future__ import annotations

from datetime import datetime
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from frcnn.files import printable, write_text
from frcnn.training.folder import RunFolder


class Journal:
    """Prints to standard error, so that standard output stays free for results; keeps everything for the log.

    Lines that are said before the run has its folder are written once it is known.
    """

    def __init__(self, progress: bool | None = None, *, silent: bool = False) -> None:
        """``progress`` None: a bar on a terminal only. ``silent``: nothing is printed (other ranks)."""
        self._console = Console(stderr=True, quiet=silent, highlight=False, soft_wrap=True)
        self._wanted = self._console.is_terminal if progress is None else progress
        self._folder: RunFolder | None = None
        self._early: list[str] = []
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self.silent = silent
        self.notes: list[str] = []

    def open(self, folder: RunFolder) -> None:
        """From now on lines go to the folder's log as well; a resumed run goes on in the same file."""
        if self.silent:
            return
        self._folder = folder
        for line in self._early:
            self._log(line)
        self._early = []
        self._write_notes()

    def say(self, text: str) -> None:
        """Print and log."""
        text = printable(text)
        self._console.print(text, markup=False)
        self._log(text)

    def note(self, text: str) -> None:
        """Say something about what was frozen, ignored, clipped or capped; it also goes to ``notes.txt``."""
        self.say(text)
        self.notes.append(text)
        self._write_notes()

    def start_bar(self, total: int, done: int) -> None:
        """Show the bar, where wanted."""
        if not self._wanted or self.silent:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, refresh_per_second=4)
        self._task = self._bar.add_task("", total=total, completed=done)
        self._bar.start()

    def advance(self, step: int, description: str) -> None:
        """Move the bar to ``step``."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=description)

    @property
    def has_bar(self) -> bool:
        """Whether a bar is on the screen."""
        return self._bar is not None

    def stop_bar(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the terminal, which another process opens anew."""
        return {"silent": self.silent, "folder": self._folder, "notes": self.notes, "wanted": self._wanted}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["wanted"], silent=state["silent"])  # type: ignore[misc]
        self._folder, self.notes = state["folder"], state["notes"]

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_bar()

    def _log(self, text: str) -> None:
        if self._folder is None:
            self._early.append(text)
            return
        stamp = datetime.now().strftime("%H:%M:%S")
        with self._folder.log.open("a", encoding="utf-8") as file:
            file.writelines(f"{stamp} {line}\n" for line in text.splitlines())

    def _write_notes(self) -> None:
        if self._folder is not None and self.notes:
            write_text(self._folder.path / "notes.txt", "\n".join(self.notes) + "\n")
