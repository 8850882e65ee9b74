"""The gate: rules, the model that a candidate is compared with, the verdict."""
