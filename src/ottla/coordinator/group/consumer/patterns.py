r"""Regular expressions for names of topics, in RE2's syntax, matched in linear time.

    x . [a-z] [^a-z] [[:alpha:]] \d \w \s \. \x41 \Qa.b\E     characters
    (x) (?:x) (?P<name>x) (?i) (?i:x)  x|y  xy                groups, alternatives, sequences
    x* x+ x? x{2} x{2,} x{2,5}, each with ? behind            repetitions
    ^ $ \A \z                                                 the ends

A name matches as a whole. A name has few characters, so every atom is a set of these, and what is
matched is a set of places in the expression (Thompson): there is nothing to go back to, and no
expression that a member sends can keep the broker busy. It may have `LENGTH_MAX` characters and
come to `PLACES_MAX` places.

Not here, though in RE2: \b and \B, which are refused, and classes of Unicode (\p), which no name
needs. Neither there nor here: looking around and back references.

Kafka: TopicRegexResolver, which has RE2/J.
"""

from __future__ import annotations

import string

LENGTH_MAX = 500
PLACES_MAX = 1000
_DEPTH_MAX = 100
_REPEAT_MAX = 1000

_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "._-")
_SPACE = frozenset(" \t\n\r\f\v")
_WORD = frozenset(string.ascii_letters + string.digits + "_")
_CLASSES = {"d": frozenset(string.digits), "w": _WORD, "s": _SPACE - {"\v"}}
_POSIX = {
    "alnum": frozenset(string.ascii_letters + string.digits),
    "alpha": frozenset(string.ascii_letters),
    "ascii": frozenset(map(chr, range(128))),
    "blank": frozenset(" \t"),
    "cntrl": frozenset(map(chr, [*range(32), 127])),
    "digit": frozenset(string.digits),
    "graph": frozenset(map(chr, range(33, 127))),
    "lower": frozenset(string.ascii_lowercase),
    "print": frozenset(map(chr, range(32, 127))),
    "punct": frozenset(string.punctuation),
    "space": _SPACE,
    "upper": frozenset(string.ascii_uppercase),
    "word": _WORD,
    "xdigit": frozenset(string.hexdigits),
}
_CONTROLS = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_FLAGS = frozenset("imsU")


class InvalidPattern(Exception):
    """A regular expression that cannot be; the text says why."""


class _Places:
    """Places in an expression, and the ways from one to the next.

    Attributes:
        free: where one may go without a character, by place; None: at the name's begin or end only.
        steps: the characters with which one goes on, and where to.
    """

    def __init__(self) -> None:
        self.free: list[list[tuple[int, str]]] = []
        self.steps: list[tuple[frozenset[str], int] | None] = []

    def new(self) -> int:
        if len(self.free) >= PLACES_MAX:
            raise InvalidPattern("expression too large")
        self.free.append([])
        self.steps.append(None)
        return len(self.free) - 1


_Part = tuple[int, int]
"""Where a part of an expression begins and ends."""


class _Parser:
    """Reads an expression, and makes places of it."""

    def __init__(self, text: str) -> None:
        self._text = _without_quotes(text)
        self._at = 0
        self._ignores_case = False
        self._depth = 0
        self.places = _Places()

    def whole(self) -> _Part:
        part = self._alternatives()
        if self._at < len(self._text):
            raise InvalidPattern("unexpected )")
        return part

    # -- characters of the expression

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _takes(self, expected: str) -> bool:
        if not self._text.startswith(expected, self._at):
            return False
        self._at += len(expected)
        return True

    def _next(self, what: str) -> str:
        if self._at >= len(self._text):
            raise InvalidPattern(f"missing {what}")
        self._at += 1
        return self._text[self._at - 1]

    def _until(self, end: str, what: str) -> str:
        found = self._text.find(end, self._at)
        if found < 0:
            raise InvalidPattern(f"missing {what}")
        part, self._at = self._text[self._at : found], found + len(end)
        return part

    # -- parts

    def _link(self, begin: int, end: int, when: str = "") -> None:
        self.places.free[begin].append((end, when))

    def _one_of(self, characters: frozenset[str]) -> _Part:
        if self._ignores_case:
            characters |= {each.lower() for each in characters}
            characters |= {each.upper() for each in characters}
        begin, end = self.places.new(), self.places.new()
        self.places.steps[begin] = (characters & _NAME_CHARACTERS, end)
        return begin, end

    def _nothing(self, when: str = "") -> _Part:
        begin, end = self.places.new(), self.places.new()
        self._link(begin, end, when)
        return begin, end

    def _alternatives(self) -> _Part:
        ignores_case = self._ignores_case
        begin, end = self.places.new(), self.places.new()
        while True:
            first, last = self._sequence()
            self._link(begin, first)
            self._link(last, end)
            if not self._takes("|"):
                self._ignores_case = ignores_case
                return begin, end

    def _sequence(self) -> _Part:
        begin, end = self._nothing()
        while self._peek() not in ("", "|", ")"):
            first, last = self._repeated()
            self._link(end, first)
            end = last
        return begin, end

    def _repeated(self) -> _Part:
        at = self._at
        ignores_case = self._ignores_case
        part = self._atom()
        is_repeated = False
        while (bounds := self._bounds()) is not None:
            if is_repeated:
                raise InvalidPattern("invalid nested repetition operator")
            is_repeated = True
            part = self._times(part, bounds, (at, ignores_case))
        return part

    def _bounds(self) -> tuple[int, int | None] | None:
        """Return how often at least and at most, None for no end; or None: once."""
        kinds: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        bounds = kinds.get(self._peek())
        if bounds is not None:
            self._at += 1
        elif self._peek() == "{":
            bounds = self._counted()
        if bounds is not None:
            self._takes("?")
        return bounds

    def _counted(self) -> tuple[int, int | None] | None:
        end = self._text.find("}", self._at)
        least, comma, most = self._text[self._at + 1 : max(end, 0)].partition(",")
        numbers = [each for each in (least, most) if each]
        if not least or not all(each.isascii() and each.isdigit() for each in numbers):
            return None
        self._at = end + 1
        if any(len(each) > 4 or int(each) > _REPEAT_MAX for each in numbers):
            raise InvalidPattern("invalid repeat count")
        if not comma:
            return int(least), int(least)
        if most and int(most) < int(least):
            raise InvalidPattern("invalid repeat count")
        return int(least), int(most) if most else None

    def _times(self, part: _Part, bounds: tuple[int, int | None], start: tuple[int, bool]) -> _Part:
        """Repeat the part that was just read; it is read again for each copy."""
        least, most = bounds
        after = self._at
        begin, end = self._nothing()
        copies = max(least + (most is None), 1) if most is None else most
        for number in range(copies):
            if number > 0:
                self._at, self._ignores_case = start
                part = self._atom()
            first, last = part
            self._link(end, first)
            if number >= least:
                following = self.places.new()
                self._link(end, following)
                self._link(last, following)
                if most is None:
                    self._link(last, first)
                last = following
            end = last
        self._at = after
        return begin, end

    # -- atoms

    def _atom(self) -> _Part:
        if self._text.startswith("{", self._at) and self._counted() is not None:
            raise InvalidPattern("missing argument to repetition operator")
        character = self._next("expression")
        if character in "*+?":
            raise InvalidPattern(f"missing argument to repetition operator: {character}")
        if character == "(":
            return self._group()
        if character == "[":
            return self._one_of(self._class())
        if character == ".":
            return self._one_of(_NAME_CHARACTERS)
        if character in "^$":
            return self._nothing("begin" if character == "^" else "end")
        if character == "\\":
            return self._escaped()
        return self._one_of(frozenset(character))

    def _group(self) -> _Part:
        outer = self._ignores_case
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise InvalidPattern("expression nests too deeply")
        if self._takes("?"):
            after = self._text[self._at + 1 : self._at + 2]
            if self._takes("P<") or (after not in ("=", "!") and self._takes("<")):
                name = self._until(">", "> of a name")
                if not name or not set(name) <= _WORD:
                    raise InvalidPattern(f"invalid named capture: {name}")
            elif self._flags() == ")":
                self._depth -= 1
                return self._nothing()
        part = self._alternatives()
        if not self._takes(")"):
            raise InvalidPattern("missing closing )")
        self._ignores_case = outer
        self._depth -= 1
        return part

    def _flags(self) -> str:
        """Read flags, which hold from here on, and return what ends them."""
        is_on = True
        while True:
            character = self._next("closing )")
            if character in ":)":
                return character
            if character == "-" and is_on:
                is_on = False
            elif character not in _FLAGS:
                raise InvalidPattern(f"invalid or unsupported Perl syntax: (?{character}")
            elif character == "i":
                self._ignores_case = is_on

    def _escaped(self) -> _Part:
        if self._takes("A"):
            return self._nothing("begin")
        if self._takes("z"):
            return self._nothing("end")
        return self._one_of(self._escape())

    def _escape(self) -> frozenset[str]:
        character = self._next("escaped character: trailing \\")
        if character in _CLASSES:
            return _CLASSES[character]
        if character.lower() in _CLASSES:
            return _NAME_CHARACTERS - _CLASSES[character.lower()]
        if character in _CONTROLS:
            return frozenset(_CONTROLS[character])
        if character == "x":
            digits = self._until("}", "}") if self._takes("{") else self._next("digit")
            if len(digits) == 1 and self._text[self._at - 1] != "}":
                digits += self._next("digit")
            if not digits or len(digits) > 6 or not set(digits) <= set(string.hexdigits):
                raise InvalidPattern("invalid escape sequence")
            code = int(digits, 16)
            return frozenset(chr(code)) if code < 0x110000 else frozenset()
        if character.isascii() and not character.isalnum():
            return frozenset(character)
        raise InvalidPattern(f"invalid escape sequence: \\{character}")

    # -- classes

    def _class(self) -> frozenset[str]:
        is_negated = self._takes("^")
        found: set[str] = set()
        is_first = True
        while is_first or self._peek() != "]":
            is_first = False
            if self._takes("[:"):
                found |= self._posix()
                continue
            low = self._class_character()
            if (
                isinstance(low, str)
                and self._peek() == "-"
                and self._text[self._at + 1 : self._at + 2] not in ("]", "")
            ):
                self._at += 1
                high = self._class_character()
                if not isinstance(high, str) or high < low:
                    raise InvalidPattern("invalid character class range")
                found.update(each for each in _NAME_CHARACTERS if low <= each <= high)
            else:
                found.update(low)
        self._at += 1
        if self._ignores_case:
            found |= {each.lower() for each in found} | {each.upper() for each in found}
        return frozenset(_NAME_CHARACTERS - found if is_negated else found)

    def _class_character(self) -> str | frozenset[str]:
        character = self._next("closing ]")
        if character != "\\":
            return character
        escaped = self._escape()
        return next(iter(escaped)) if len(escaped) == 1 else escaped

    def _posix(self) -> frozenset[str]:
        name = self._until(":]", ":]")
        is_negated = name.startswith("^")
        found = _POSIX.get(name.removeprefix("^"))
        if found is None:
            raise InvalidPattern(f"invalid character class range: [:{name}:]")
        return _NAME_CHARACTERS - found if is_negated else found


def _without_quotes(text: str) -> str:
    """Return an expression with what stands between \\Q and \\E escaped instead."""
    found = []
    at = 0
    while at < len(text):
        if text.startswith("\\Q", at):
            end = text.find("\\E", at)
            quoted = text[at + 2 : end if end >= 0 else None]
            found += [each if each.isalnum() else f"\\{each}" for each in quoted]
            at = len(text) if end < 0 else end + 2
        else:
            step = 2 if text[at] == "\\" else 1
            found.append(text[at : at + step])
            at += step
    return "".join(found)


class TopicPattern:
    """A regular expression for names of topics.

    Args:
        text: the expression.

    Raises:
        InvalidPattern: it cannot be one.
    """

    def __init__(self, text: str) -> None:
        if len(text) > LENGTH_MAX:
            raise InvalidPattern(f"more than {LENGTH_MAX} characters")
        parser = _Parser(text)
        begin, self._end = parser.whole()
        self._places = parser.places
        self._begin = self._closed({begin}, "begin")
        self._known: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def _closed(self, places: set[int], when: str = "") -> frozenset[int]:
        """Return these places and whatever can be reached from them without a character."""
        found = set(places)
        left = list(places)
        while left:
            for following, needs in self._places.free[left.pop()]:
                if needs in ("", when) and following not in found:
                    found.add(following)
                    left.append(following)
        return frozenset(found)

    def matches(self, name: str) -> bool:
        """Tell whether a name matches as a whole."""
        places = self._begin
        for character in name:
            key = (places, character)
            following = self._known.get(key)
            if following is None:
                following = self._known[key] = self._stepped(places, character)
            places = following
            if not places:
                return False
        return self._end in self._closed(set(places), "end")

    def _stepped(self, places: frozenset[int], character: str) -> frozenset[int]:
        reached: set[int] = set()
        for place in places:
            step = self._places.steps[place]
            if step is not None and character in step[0]:
                reached.add(step[1])
        return self._closed(reached)
