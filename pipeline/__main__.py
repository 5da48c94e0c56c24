"""`python -m pipeline COMMAND` is `mv4d COMMAND`, for places where the script is not installed (a Ray job, say)."""

import sys

from pipeline.cli import main

sys.exit(main())
