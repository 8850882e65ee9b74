"""An atomic push to the folder that TensorFlow Serving watches."""
