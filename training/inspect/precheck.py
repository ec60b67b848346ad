"""Whether there is anything wrong with a data set, told before the programs for teaching are loaded, which takes seconds."""

from pathlib import Path
from typing import Any

from edge_runtime.errors import DataError
from training.core.progress import Progress, silent
from training.data.dataset import Dataset, load_dataset, read_names, refuse_alike, refuse_none_left
from training.data.duplicates import say_different
from training.data.promise import LEAST_DIFFERENT
from training.inspect.inspect import Inspection, inspect_data


def precheck(
    data: Path,
    reading: dict[str, Any],
    *,
    bad: Path | None,
    masks: Path | None,
    allow_duplicates: bool,
    leave_out: Path | None = None,
    least: int = LEAST_DIFFERENT,
    progress: Progress = silent,
) -> Inspection:
    """Inspect every image of what is to be taught, and refuse what cannot be; `load_dataset` need not decode them again.

    Args:
        reading: further arguments of `load_dataset`.
        leave_out: a file of good images that are not to be learnt.
        least: good images that the method takes.

    Raises:
        DataError: what `load_dataset` refuses, good and bad that may be swapped, or too few good images that differ.
        ConfigError: an impossible region, mask or size.
    """
    few_good = bool(reading.get("few_good"))
    inspection = inspect_data(data, bad=bad, masks=masks, few_good=few_good, told=lambda done, total: progress("check images", done, total))
    dataset = load_dataset(data, bad=bad, masks=masks, allow_duplicates=allow_duplicates, known=inspection.facts, **reading)
    if inspection.reversed:
        raise DataError(inspection.reversed)
    if leave_out is not None:
        dataset = dataset.leave_out(read_names(leave_out, dataset))
        refuse_none_left(dataset)
    refuse_alike(dataset)
    _refuse_few(dataset, least)
    return inspection


def _refuse_few(dataset: Dataset, least: int) -> None:
    if (n := len(dataset.train)) >= least:
        return
    found = f"{say_different(n + len(dataset.copies), n)}" if dataset.copies else f"{n}"
    test = sum(s.is_good for s in dataset.test)
    held = f" beside {test} that are kept to judge by" if test else ""
    more = "photograph more good parts: a hundred is a good start"
    way = f"{more}; or take a method that does with so few (--method auto)" if n >= LEAST_DIFFERENT else more
    raise DataError(f"data: expected at least {least} good images to learn from, found {found}{held} in {dataset.path}; {way}")
