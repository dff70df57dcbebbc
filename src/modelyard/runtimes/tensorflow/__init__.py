"""TensorFlow SavedModels: read and checked without TensorFlow, then run with what was checked alone."""
