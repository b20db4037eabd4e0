"""Kernels: the only place that chooses one. Import `backend_for` and `pack`."""
