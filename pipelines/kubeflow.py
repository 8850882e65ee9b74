"""The same pipeline, compiled for Kubeflow Pipelines."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import (
    LatestBlessedModelStrategy,
)
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

from ..components.errors import InputError
from .config import DEMO_CORPUS, Config
from .pipeline import make_components


def compile_pipeline(config: Config, output: Path) -> None:
    """Writes the pipeline as a Kubeflow Pipelines v2 specification.

    Args:
        config: The configuration. `root` and the push folder should lie on storage
            that all containers of the cluster reach.
        output: The file; `.yaml` or `.json`.

    Raises:
        InputError: Where the file cannot be written.
    """
    if output.suffix not in (".yaml", ".json"):
        raise InputError(f"{output}: the file's name must end in .yaml or .json")
    root = f"{config.root}/{config.name}"
    demo = f"{config.root}/demo-corpus"
    corpus = [
        dataclasses.replace(source, path=demo) if source.path == DEMO_CORPUS else source
        for source in config.corpus.all_sources
    ]
    pipeline = tfx_pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=f"{root}/artifacts",
        components=make_components(
            config,
            corpus=corpus,
            # The cluster's files are not seen from here: the generator is never cached.
            fingerprint="",
            checkpoint_root=f"{root}/checkpoints",
            ingestion_record=f"{root}/ingestion.json",
            watch=config.watch.model_dump(),
            # Kubeflow Pipelines knows TFX's own strategies only.
            baseline_strategy=LatestBlessedModelStrategy,
            name_candidate=False,
        ),
        beam_pipeline_args=config.beam_pipeline_args,
    )
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        config=kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            display_name=config.name
        ),
        output_dir=str(output.absolute().parent),
        output_filename=output.name,
    )
    try:
        runner.run(pipeline)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror}") from error
