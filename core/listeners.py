"""Who follows a run: the plugins' hooks, the job's listeners, and the project's own files and status lines.

Every follower has methods named like the hooks of :mod:`core.hookspecs` and may name fewer arguments. One that raises
is reported once, by name, and the run goes on; ``MAQUETTE_STRICT=1`` re-raises.
"""

from __future__ import annotations

import inspect
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn

from core.checkpoint import write_atomic

if TYPE_CHECKING:
    from core.run import Run

EVENTS = ("on_start", "on_step", "on_preview", "on_export", "on_finish")
PLAIN_SECONDS = 5.0
"""Time between two plain lines; a log of a long run stays readable."""

Follower = tuple[str, Callable[..., Any], tuple[str, ...]]


class Events:
    """Calls every follower of an event, each on its own.

    Args:
        hooks: the registry's relay (may be None).
        listeners: pairs of (name, object with any of the methods in ``EVENTS``, and perhaps ``close()``).
        report: told in one sentence that a follower failed.
        strict: re-raise instead; by default what ``MAQUETTE_STRICT`` says.
    """

    def __init__(
        self,
        hooks: Any = None,
        listeners: Iterable[tuple[str, Any]] = (),
        report: Callable[[str], None] = print,
        strict: bool | None = None,
    ) -> None:
        self._listeners = list(listeners)
        self._report = report
        self._strict = os.environ.get("MAQUETTE_STRICT", "") not in ("", "0") if strict is None else strict
        self._reported: set[str] = set()
        self._followers = {event: self._find(event, hooks) for event in EVENTS}

    def _find(self, event: str, hooks: Any) -> list[Follower]:
        found: list[Follower] = []
        for name, listener in self._listeners:
            method = getattr(listener, event, None)
            if callable(method):
                found.append((name, method, tuple(inspect.signature(method).parameters)))
        relay = getattr(hooks, event, None)
        # pluggy's own order: the last registered first, `tryfirst` before all
        for hook in reversed(relay.get_hookimpls()) if relay is not None else ():
            found.append((f"plugin {hook.plugin_name}", hook.function, tuple(hook.argnames)))
        return found

    def emit(self, event: str, **values: Any) -> None:
        """Tell every follower of ``event``; an exception of one does not reach the others nor the caller."""
        for name, function, accepted in self._followers[event]:
            self.guard(f"{name} ({event})", function, **{k: values[k] for k in accepted if k in values})

    def guard(self, name: str, function: Callable[..., Any], **values: Any) -> Any:
        """Call ``function``; an exception is reported once for each ``name``."""
        try:
            return function(**values)
        except Exception as error:
            if self._strict:
                raise
            if name not in self._reported:
                self._reported.add(name)
                self._report(f"{name} failed and is ignored: {type(error).__name__}: {error}")
            return None

    def close(self) -> None:
        """Let followers put away what they hold (status lines, windows), however the run ended."""
        for name, listener in self._listeners:
            if callable(getattr(listener, "close", None)):
                self.guard(f"{name} (close)", listener.close)


class MetricsFile:
    """``metrics.jsonl``: one line every ``log_every`` steps and one for the last."""

    def on_step(self, run: Run, step: int) -> None:
        now = run.progress
        if step % max(now.log_every, 1) == 0 or step == now.total:
            run.log(**now.record())


class StatusFile:
    """``status.json``, refreshed at most once a second."""

    def __init__(self) -> None:
        self._written = 0.0

    def on_step(self, run: Run) -> None:
        if time.monotonic() - self._written > 1.0:
            self._written = time.monotonic()
            run.set_status("running")


class PlainLines:
    """A line of text every few seconds and at the end of each stage, for logs and pipes."""

    def __init__(self, seconds: float = PLAIN_SECONDS) -> None:
        self._seconds = seconds
        self._last = float("-inf")

    def on_step(self, run: Run, step: int) -> None:
        now = run.progress
        due = time.monotonic() - self._last >= self._seconds
        if due or step == now.stage_end:
            self._last = time.monotonic()
            run.say(f"{now.stage_name} {step}/{now.total}  {now.describe()}")

    def on_export(self, run: Run, path: Path, kind: str) -> None:
        run.say(f"wrote {path}")


class StatusLine:
    """A live line at the foot of the terminal: steps, losses, pace, time left, memory."""

    REFRESH = 0.1

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: Any = None
        self._drawn = 0.0

    def on_start(self, run: Run) -> None:
        columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}")]
        self._bar = Progress(*columns, console=run.console, auto_refresh=False)
        self._bar.start()
        self._task = self._bar.add_task(run.progress.stage_name, total=run.progress.total, text="")

    def on_step(self, run: Run, step: int) -> None:
        now = run.progress
        if self._bar is None or (time.monotonic() - self._drawn < self.REFRESH and step != now.total):
            return
        self._drawn = time.monotonic()
        text = f"{step}/{now.total}  {now.describe()}"
        self._bar.update(self._task, completed=step, description=now.stage_name, text=text, refresh=True)

    def on_export(self, run: Run, path: Path, kind: str) -> None:
        run.say(f"wrote {path}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def own_listeners(terminal: bool, quiet: bool) -> list[tuple[str, Any]]:
    """The project's own followers for a run."""
    found: list[tuple[str, Any]] = [("metrics.jsonl", MetricsFile()), ("status.json", StatusFile())]
    if not quiet:
        found.append(("status line", StatusLine() if terminal else PlainLines()))
    return found


def truncate_metrics(path: Path, step: int) -> int:
    """Drop the lines of ``metrics.jsonl`` beyond ``step`` and a line that was cut short; returns how many went."""
    if not path.exists():
        return 0
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if _step_of(line) <= step]
    write_atomic(path, "".join(line + "\n" for line in kept))
    return len(lines) - len(kept)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
