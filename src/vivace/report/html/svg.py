"""SVG elements as text: everything that is not markup already is escaped, so no name can become part of the page."""

from __future__ import annotations

from markupsafe import Markup

Attribute = str | float | None
SMALL_WIDTH, CAPITAL_WIDTH = 5.5, 7.4
"""About how wide signs are in the drawings' own units, at their size of text."""
MARKERS = {
    "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": ((0, -1.15), (1.1, 0.85), (-1.1, 0.85)),
    "wedge": ((0, 1.15), (1.1, -0.85), (-1.1, -0.85)),
    "bar": ((-0.5, -1.25), (0.5, -1.25), (0.5, 1.25), (-0.5, 1.25)),
}


def tag(name: str, *children: str, **attributes: Attribute) -> Markup:
    """One element. An attribute's trailing "_" is dropped, "_" becomes "-", and None leaves it out.

    >>> tag("text", "a < b", class_="axis", text_anchor="end", x=1.23456)
    Markup('<text class="axis" text-anchor="end" x="1.23">a &lt; b</text>')
    """
    given = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    written = Markup("").join(Markup(' {}="{}"').format(key, _plain(value)) for key, value in given)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, join(*children))


def join(*children: str) -> Markup:
    """Elements one after the other; plain texts are escaped."""
    return Markup("").join(children)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """A rectangle; one that is narrower than a hair is drawn as a hair."""
    return tag("rect", x=x, y=y, width=max(width, 0.8), height=max(height, 0.8), class_=class_)


def path(points: list[tuple[float, float]], class_: str) -> Markup:
    """An open line through points."""
    return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


def text(x: float, y: float, words: str, class_: str = "", anchor: str | None = None) -> Markup:
    """A text whose baseline begins (anchor None), ends ("end") or is centred ("middle") at x, y."""
    return tag("text", words, x=x, y=y, class_=class_ or None, text_anchor=anchor)


def marker(shape: str, x: float, y: float, class_: str, size: float = 3.6) -> Markup:
    """A point: circle, cross, diamond, square, triangle, bar, or wedge (a triangle that points down)."""
    if shape == "cross":
        sides = ((-size, -size, size, size), (-size, size, size, -size))
        return join(*(line(x + a, y + b, x + c, y + d, class_) for a, b, c, d in sides))
    if shape in MARKERS:
        corners = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in MARKERS[shape])
        return tag("polygon", points=corners, class_=class_)
    return tag("circle", cx=x, cy=y, r=size, class_=class_)


def hover(tip: str, *children: str) -> Markup:
    """Elements that show a text when they are pointed at."""
    return tag("g", tag("title", tip), *children, class_="mark")


def drawing(name: str, title: str, description: str, width: float, height: float, *children: str) -> Markup:
    """A whole drawing with its alternatives in words; `name` is unique on the page."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-desc"),
        *children,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def width_of(words: str) -> float:
    """About how wide a text is."""
    return sum(CAPITAL_WIDTH if sign.isupper() else SMALL_WIDTH for sign in words)


def _plain(value: Attribute) -> Attribute:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
