#!/usr/bin/env python
"""What the served model thinks of every token of texts: compact records, to distil a student from.

    ray job submit --working-dir . -- python jobs/extract_teacher_logits.py --input FOLDER --output FOLDER

The same as `zenray jobs submit teacher-logits`, whose options it takes; `--help` lists them.
"""

from __future__ import annotations

import sys

from zenray.cli.main import main

if __name__ == "__main__":
    sys.argv[1:1] = ["jobs", "submit", "teacher-logits"]
    main()
