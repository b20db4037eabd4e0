"""What serving costs beside the engine, measured: `python -m zenray.serving.measure --help`."""
