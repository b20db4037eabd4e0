#!/usr/bin/env python
"""Unit tests for Python functions, generated, executed and validated.

    ray job submit --working-dir . -- python jobs/generate_unit_tests.py --input FOLDER --output FOLDER

The same as `zenray jobs submit unit-tests`, whose options it takes; `--help` lists them.
"""

from __future__ import annotations

import sys

from zenray.cli.main import main

if __name__ == "__main__":
    sys.argv[1:1] = ["jobs", "submit", "unit-tests"]
    main()
