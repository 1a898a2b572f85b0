"""From images to a registered image classifier: six stages and what flows between them."""

import os

# TensorFlow reads it once, when it is imported: only what stops it is worth a line on stderr.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
