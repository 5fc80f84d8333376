"""`python -m steerlab` is `steerlab`."""

from steerlab.cli import main

if __name__ == "__main__":
    main()
