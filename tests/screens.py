"""A terminal for tests of what stands on it in the end: it obeys what rich writes, and knows nothing else."""

import io
import re

__all__ = ["Screen"]

_BEGUN = re.compile(r"\x1b(\[[0-9;?]*)?\Z")
_PIECES = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen(io.StringIO):
    """A terminal of so many columns, as long as needed, which breaks its lines anew when it is made narrower."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.paragraphs = [""]  # each may have several rows
        self.writes = 0
        self.is_cursor_shown = True
        self._begun = ""  # of what tells the terminal to do something, until the rest of it is written
        self._at = (0, 0, 0)  # in which paragraph the cursor is, in which row of it, and in which column

    def resize(self, width: int) -> None:
        """Break the lines anew, as a window does that is made narrower or wider."""
        paragraph, row, column = self._at
        at = row * self.width + column
        self.width = width
        row = max(0, at - 1) // width  # a row that is full is left with the next letter
        self._at = (paragraph, row, at - row * width)

    @property
    def shown(self) -> list[str]:
        """What stands there, without the empty lines at its end."""
        return "\n".join(text.rstrip() for text in self.paragraphs).rstrip("\n").split("\n")

    def write(self, text: str) -> int:
        length = len(text)
        self.writes += 1
        text = self._begun + text
        self._begun = found[0] if (found := _BEGUN.search(text)) else ""
        text = text.removesuffix(self._begun)
        for number, letter, move, words in _PIECES.findall(text):
            if words:
                self._type(words)
            elif move:
                self._move(move)
            elif letter == "A":
                for _ in range(int(number or 1)):
                    self._up()
            elif letter == "K":
                assert number == "2"
                self._erase_row()
            else:
                assert letter == "m" or number == "?25", (number, letter)  # a colour, or whether the cursor is shown
                self.is_cursor_shown = letter == "h" if number == "?25" else self.is_cursor_shown
        return length

    def _type(self, words: str) -> None:
        paragraph, row, column = self._at
        at = row * self.width + column
        text = self.paragraphs[paragraph].ljust(at)
        self.paragraphs[paragraph] = text[:at] + words + text[at + len(words) :]
        at += len(words)
        row = (at - 1) // self.width
        self._at = (paragraph, row, at - row * self.width)

    def _move(self, move: str) -> None:
        paragraph, row, _ = self._at
        if move == "\r":
            self._at = (paragraph, row, 0)
            return
        if paragraph + 1 == len(self.paragraphs):
            self.paragraphs.append("")
        self._at = (paragraph + 1, 0, 0)

    def _up(self) -> None:
        paragraph, row, column = self._at
        if row:
            self._at = (paragraph, row - 1, column)
        elif paragraph:
            self._at = (paragraph - 1, max(0, len(self.paragraphs[paragraph - 1]) - 1) // self.width, column)

    def _erase_row(self) -> None:
        paragraph, row, _ = self._at
        start = row * self.width
        text = self.paragraphs[paragraph]
        rest = text[start + self.width :]
        self.paragraphs[paragraph] = f"{text[:start]}{' ' * self.width}{rest}" if rest else text[:start]
