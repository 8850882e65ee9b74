"""The configuration of a pipeline: one YAML file, checked before anything starts."""
