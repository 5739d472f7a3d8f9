"""`python -m foothill` is the `foothill` command."""

from foothill.cli import main

main()
