"""The folder of a model's versions, here or in an object store."""
