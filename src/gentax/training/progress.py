"""The progress of a training run, one line a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gentax.core.progress import Progress, is_shown, minutes

MANY = 0.05  # a share of truncated replies from which it is said, as after an evaluation


def show_row(line: Progress, row: Mapping[str, float], steps: int) -> None:
    """Show a row of a run of `steps` policy-gradient steps, or of the imitation before it."""
    number, of = (row["imitate"], row["of"]) if "imitate" in row else (row["step"], steps)
    line.say(training_line(row, steps), int(number), int(of))


def shown_rows(
    steps: int, progress: bool | None, on_row: Callable[[dict[str, float]], None]
) -> Callable[[dict[str, float]], None]:
    """Return a callback for the rows of a run that shows them, where `progress` says so, and calls `on_row`."""
    if not is_shown(progress):
        return on_row
    line = Progress()

    def both(row: dict[str, float]) -> None:
        show_row(line, row, steps)
        on_row(row)

    return both


def training_line(row: Mapping[str, float], steps: int) -> str:
    """Return a step of training as one line."""
    if "imitate" in row:
        return f"  imitation {row['imitate']:.0f}/{row['of']:.0f}  loss {row['loss']:.3f}"
    held = f"  validation {row['validation_success']:.2f}" if "validation_success" in row else ""
    cut = row.get("truncated", 0)  # no fault of the policy's, and not among the invalid
    lost = f"  cut off {cut:.0%}" if cut > MANY else ""
    return (
        f"  step {row['step']:.0f}/{steps}  success {row['success']:.2f}  return {row['return']:.2f}  "
        f"length {row['length']:.1f}  invalid {row['invalid']:.0%}{lost}  entropy {row.get('entropy', 0):.2f}  "
        f"kl {row.get('kl', 0):.3f}  {row['tokens_per_s']:.0f} tokens/s  {minutes(row['left_s'])} left{held}"
    )
