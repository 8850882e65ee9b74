"""The pipeline compiled for Kubeflow Pipelines, and what its containers run."""
