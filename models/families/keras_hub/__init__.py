"""KerasHub's own models in the place of the zoo's."""
