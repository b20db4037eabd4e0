"""zenray: code-completion serving and batch generation on Ray."""

import os

__version__ = "0.1.0"

# Read when torch is loaded. Its threads would go on spinning after every parallel operation, on the cores that the
# next forward's own threads need: 4.5 ms of 9 were lost. A value the user has set is left alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
