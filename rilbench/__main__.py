"""``python -m rilbench``: the command line."""

from rilbench.cli import main

if __name__ == "__main__":
    main()
