"""A dataset's preview: in a terminal token by token in colour, in a pipe as plain lines."""

from rich.text import Text

from cli.client import Json
from cli.screen import out, safe

_COLOURS = ("cyan", "green")
_NO_LOSS = "dim strike"


def show(preview: Json) -> None:
    """Print every window, and what was left out."""
    for number, window in enumerate(preview["windows"], 1):
        _heading(number, window)
        for part in window["parts"]:
            out.print(_coloured(part) if out.is_terminal else Text(_plain(part)), soft_wrap=True)
    for left_out in preview["left_out"]:
        out.print(Text(f"left out: {_place(left_out, left_out['tokens'])}: {left_out['reason']}"), soft_wrap=True)
    if preview["more_windows"]:
        out.print(Text(f"{preview['more_windows']:,} more windows of these rows are not shown"))


def _heading(number: int, window: Json) -> None:
    places = "; ".join(_place(part, len(part["ids"])) for part in window["parts"])
    text = f"window {number}: {places} ({window['loss_tokens']} of {window['positions']} positions carry loss)"
    if out.is_terminal:
        out.rule(Text(text), align="left", style="bold")
    else:
        out.print(Text(text), soft_wrap=True)


def _place(part: Json, tokens: int) -> str:
    return f"row {part['row']}, tokens {part['start']:,} to {part['start'] + tokens - 1:,}"


def _coloured(part: Json) -> Text:
    text = Text()
    for place, (piece, loss) in enumerate(zip(_pieces(part), part["loss"], strict=True)):
        text.append(piece.replace("↵", "↵\n"), style=_COLOURS[place % 2] if loss else _NO_LOSS)
    return text


def _plain(part: Json) -> str:
    """Return tokens with bars between them; one that carries no loss has a tilde before it."""
    return "|".join(piece if loss else f"~{piece}" for piece, loss in zip(_pieces(part), part["loss"], strict=True))


def _pieces(part: Json) -> list[str]:
    """Return what the tokens stand for, on one line; a token that nobody can read is its id."""
    pieces = zip(part["pieces"], part["ids"], strict=True)
    return [f" {id_} " if text is None else safe(text.replace("\n", "↵").replace("\t", "→")) for text, id_ in pieces]
