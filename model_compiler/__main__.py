"""`python -m model_compiler`."""

from model_compiler.cli import app

if __name__ == "__main__":
    app()
