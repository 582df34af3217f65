"""`python -m lit_fm`."""

from lit_fm.cli import main

if __name__ == "__main__":
    main()
