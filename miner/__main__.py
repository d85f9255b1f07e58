"""`python -m miner`, the same as the `roadwork-miner` command."""

from miner.cli import main

if __name__ == "__main__":
    main()
