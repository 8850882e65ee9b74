"""Export to SavedModel, the model server and its clients."""
