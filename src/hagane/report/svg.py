"""matplotlib figure -> inline SVG that takes its colours and its font from the page.

matplotlib draws with fixed sentinel colours; in the SVG each becomes a CSS variable, so one picture serves light and dark
mode. Text stays text, so that it is drawn in the reader's font and can be read aloud and searched.
"""

from __future__ import annotations

import io
import re
import warnings
from html import escape

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, RULE, SURFACE = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#050505", "#060606", "#070707", "#080808")
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", SURFACE: "--surface"} | {colour: f"--series-{i + 1}" for i, colour in enumerate(SERIES)}

WIDTH = 400  # CSS pixels a figure is drawn for: small enough to be read on a phone, and two stand side by side on a desk

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hagane",
    "text.parse_math": False,  # names of languages and stages are the user's: a $ in one is a dollar
    "path.simplify": True,
    "font.size": 10,
    "axes.unicode_minus": True,
}


def new_figure(height: float = 230) -> tuple[Figure, Axes]:
    """An empty pair of axes in the page's style; `height` in CSS pixels."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(colors=MUTED, length=0, labelsize=10, pad=5)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def to_svg(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as an `<svg>` element. `name` keeps ids apart when several figures share a page; `alt` describes it to those who cannot see it."""
    buffer = io.StringIO()
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a script that matplotlib's own font lacks: the browser has it
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href=", "href=")
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box is not None
    svg = re.sub(r"^<svg[^>]*>", f'<svg {box[0]} role="img" aria-label="{escape(alt)}">', svg)
    svg = _own_ids(svg, name)
    svg = re.sub(r'(?<= style=")[^"]*', lambda style: _colours(style[0]), svg)
    svg = re.sub(r' (?:d|x|y|transform|width|height)="[^"]*"', lambda attribute: _rounded(attribute[0]), svg)
    return Markup(re.sub(r"\s*\n\s*", "\n", svg).strip())


def _rounded(attribute: str) -> str:
    """Coordinates to a hundredth of a pixel: half the bytes."""
    attribute = re.sub(r"-?\d+\.\d{3,}", lambda value: f"{float(value[0]):.2f}".rstrip("0").rstrip("."), attribute)
    return re.sub(r"\s+", " ", attribute)


def _own_ids(svg: str, name: str) -> str:
    """Drop ids nobody refers to, and give the others a name that is unique on the page."""
    used = sorted(set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)))
    names = {one or two: f"{name}-{i}" for i, (one, two) in enumerate(used)}
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{names[found[1]]}"' if found[1] in names else "", svg)
    svg = re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{names[found[1]]})", svg)
    return re.sub(r'href="#([^"]+)"', lambda found: f'href="#{names[found[1]]}"', svg)


def _colours(style: str) -> str:
    """Sentinel colours -> CSS variables; matplotlib's font gives way to the page's."""
    style = re.sub(r"#[0-9a-f]{6}", lambda colour: f"var({_VARIABLES[colour[0]]})" if colour[0] in _VARIABLES else colour[0], style)
    return re.sub(r"font-family:[^;]*;? ?", "", style)
