"""Jobs that make training data with the running verifiers: Ray Data pipelines, their inputs, sandbox and output."""

import zenray.serving  # noqa: F401  # Sets what Ray reads from the environment, before any module here imports Ray.
