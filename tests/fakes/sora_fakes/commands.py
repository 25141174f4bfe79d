"""Greet from the fake plugin."""

import typer

app = typer.Typer()


@app.command()
def greet(name: str = "you") -> None:
    """Greet somebody."""
    typer.echo(f"hello {name}")
