"""``python -m foleylib.params smoke`` writes the differences of params/smoke.yaml onto params.yaml, whose comments are kept."""

import sys

from foleylib.params.profiles import apply

if len(sys.argv) != 2:
    sys.exit("usage: ./run python -m foleylib.params PROFILE   (a file of params/, such as smoke)")
try:
    apply(sys.argv[1])
except ValueError as error:
    sys.exit(str(error))
