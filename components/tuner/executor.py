"""Executor of Tuner, and what it leaves in its artifacts."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from typing import Any

from tfx import types
from tfx.components.tuner import executor as tfx_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils

from ..progress import report
from .search import Trial, ranked, report_table

# Named as TFX names them.
BEST_FILE = "best_hyperparameters.txt"
RESULTS_FILE = "tuner_results.json"
TABLE_FILE = "tuner_results.csv"


class Executor(tfx_executor.Executor):
    """Searches as TFX's executor does, and also tells of trials that failed."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the best hyperparameters, and all trials as JSON and as CSV."""
        search: Any = tfx_executor.search(
            input_dict,
            exec_properties,
            self._get_tmp_dir(),
            print_tuning_summary=False,
        )
        best_uri = artifact_utils.get_single_uri(output_dict["best_hyperparameters"])
        io_utils.write_string_file(
            os.path.join(best_uri, BEST_FILE), json.dumps(search.best_hyperparameters())
        )
        write_results(
            search.trials, artifact_utils.get_single_uri(output_dict["tuner_results"])
        )
        report_table(search.trials)
        report(f"best: {search.best()}")
        search.forget_checkpoints()


def write_results(trials: list[Trial], folder: str) -> None:
    """Writes all trials into a folder, the best first.

    As in TFX's own file a row has `trial_id`, `score` and the hyperparameters, besides
    `steps`, `parameters`, `seconds` and the `message` of one that failed, whose score
    is null.
    """
    rows = []
    for number, trial in enumerate(ranked(trials)):
        row = dataclasses.asdict(trial)
        values, score = row.pop("values"), row.pop("bits_per_byte")
        rows.append({"trial_id": number, "score": score, **row, **values})
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    io_utils.write_string_file(os.path.join(folder, RESULTS_FILE), json.dumps(rows))
    io_utils.write_string_file(os.path.join(folder, TABLE_FILE), table.getvalue())


def read_results(folder: str) -> list[Trial]:
    """Reads the trials that `write_results` left in a folder, the best first."""
    with fileio.open(os.path.join(folder, RESULTS_FILE)) as file:
        rows = json.loads(file.read())
    fields = [field.name for field in dataclasses.fields(Trial)]
    trials = []
    for row in rows:
        known = {name: row.pop(name) for name in fields if name in row}
        row.pop("trial_id")
        known["bits_per_byte"] = row.pop("score")
        trials.append(Trial(values=row, **known))
    return trials
