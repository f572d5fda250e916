"""`python -m foleylib`: the console script."""

import sys

from foleylib.commands.main import main

sys.exit(main())
