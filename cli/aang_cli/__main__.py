"""``python -m aang_cli``: the same as ``aang``."""

from aang_cli.main import main

if __name__ == "__main__":
    main(prog_name="aang")
