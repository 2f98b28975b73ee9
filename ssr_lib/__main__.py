import sys

from ssr_lib.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
