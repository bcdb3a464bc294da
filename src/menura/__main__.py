"""`python -m menura`: the command, where its script is not on the path."""

from menura.cli.main import main

if __name__ == "__main__":
    main()
