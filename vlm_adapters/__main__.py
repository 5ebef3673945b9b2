"""`python -m vlm_adapters`: the command line, for launchers that take a module."""

from vlm_adapters.cli import main

if __name__ == "__main__":
    main()
