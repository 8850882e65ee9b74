"""How a training is watched: TensorBoard, Weights & Biases, samples of text."""
