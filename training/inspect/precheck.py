"""Whether there is anything wrong with a data set, told before the programs for teaching are loaded, which takes seconds."""

from pathlib import Path
from typing import Any

from training.core.progress import Progress, silent
from training.data.dataset import load_dataset
from training.inspect.inspect import Inspection, inspect_data


def precheck(
    data: Path, reading: dict[str, Any], *, bad: Path | None, masks: Path | None, allow_duplicates: bool, progress: Progress = silent
) -> Inspection:
    """Inspect every image of what is to be taught, and refuse what `load_dataset` refuses; it need not decode them again.

    `reading`: further arguments of `load_dataset`. Raises DataError, ConfigError.
    """
    inspection = inspect_data(data, bad=bad, masks=masks, told=lambda done, total: progress("check images", done, total))
    load_dataset(data, bad=bad, masks=masks, allow_duplicates=allow_duplicates, known=inspection.facts, **reading)
    return inspection
