"""The configuration, the wiring of components, and the runners."""
