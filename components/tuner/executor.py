"""Executor of Tuner."""

from __future__ import annotations

import json
import os
from typing import Any

from tfx.components.tuner import executor as tfx_executor
from tfx.types import artifact_utils

from .. import storage
from ..progress import report
from ..types import Artifacts, Properties
from .records import BEST_FILE, write_trials
from .search import report_table


class Executor(tfx_executor.Executor):
    """Searches as TFX's executor does, and also tells of trials that failed."""

    def Do(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties
    ) -> None:
        """Writes the best hyperparameters, and all trials as JSON and as CSV."""
        search: Any = tfx_executor.search(
            input_dict,
            exec_properties,
            self._get_tmp_dir(),
            print_tuning_summary=False,
        )
        best_uri = artifact_utils.get_single_uri(output_dict["best_hyperparameters"])
        storage.write_text(
            os.path.join(best_uri, BEST_FILE), json.dumps(search.best_hyperparameters())
        )
        write_trials(
            search.trials, artifact_utils.get_single_uri(output_dict["tuner_results"])
        )
        report_table(search.trials)
        report(f"best: {search.best()}")
        search.forget_checkpoints()
