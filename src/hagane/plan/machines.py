"""The machine table: what accelerators can do by their datasheets, and clusters of them written as `64xH200`."""

from __future__ import annotations

import difflib
import re
import tomllib
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import Field

from hagane.errors import RecipeError
from hagane.recipe.types import Frozen

Precision = Literal["float32", "tf32", "bf16", "fp8", "fp4"]
SUSTAINED = 0.869  # share of the peak where nobody measured it: that of the A100 (machines.toml, "sustained")

MOST_DEVICES = 1_000_000  # of a cluster: several times what anybody has announced


class Accelerator(Frozen):
    """One device of the table. Rates are FLOP/s and bytes/s, links one direction; what each field means stands in machines.toml."""

    name: str
    aliases: tuple[str, ...] = ()
    peak: dict[Precision, float] = Field(description="dense matrix rate by precision, FLOP/s")
    sustained: dict[Precision, float] = Field(default_factory=dict, description="share of the peak that large products reach under load, by precision")
    exponentials: float | None = Field(None, description="exponentials/s, the softmax's limit")
    memory_bytes: int = Field(gt=0)
    memory_bandwidth: float = Field(gt=0)
    devices_per_node: int = Field(gt=0, description="devices that share the fast fabric: a server, a rack or a pod")
    intra_bandwidth: float = Field(ge=0, description="bytes/s one device sends inside the fabric, one direction")
    inter_bandwidth: float = Field(ge=0, description="bytes/s one device sends out of the fabric, one direction")
    torus: int = Field(0, ge=0, le=3, description="dimensions of a torus fabric; 0 is a switch")
    watts: float | None = None
    price_per_hour: float | None = None
    released: int | None = Field(None, description="year of the first deliveries")
    source: str

    def rate(self, precision: Precision) -> float:
        """Peak FLOP/s at a precision. Raises RecipeError where the device has no units for it."""
        if precision not in self.peak:
            raise RecipeError(f"{self.name} has no {precision} matrix units. It has: {', '.join(self.peak)}.")
        return self.peak[precision]

    def sustained_rate(self, precision: Precision) -> float:
        """FLOP/s that large products reach under load. Raises RecipeError as `rate` does."""
        return self.rate(precision) * self.sustained.get(precision, SUSTAINED)


class Cluster(Frozen):
    """`count` devices of one kind, filling nodes of `accelerator.devices_per_node`."""

    accelerator: Accelerator
    count: int = Field(gt=0)

    def __str__(self) -> str:
        return f"{self.count}x{self.accelerator.name}"

    @property
    def node(self) -> int:
        """Devices that share the fast fabric in this cluster."""
        return min(self.count, self.accelerator.devices_per_node)

    @property
    def price_per_hour(self) -> float | None:
        """US dollars an hour of the whole cluster, by the table's assumption."""
        return None if self.accelerator.price_per_hour is None else self.accelerator.price_per_hour * self.count


@cache
def accelerators() -> dict[str, Accelerator]:
    """Name -> device, in the order of the table."""
    text = (resources.files("hagane.plan") / "machines.toml").read_text(encoding="utf-8")
    found = [Accelerator.model_validate(values) for values in tomllib.loads(text)["accelerator"]]
    return {item.name: item for item in found}


def _key(name: str) -> str:
    return re.sub(r"[\s_+-]", "", name).lower()


def _by_key() -> dict[str, Accelerator]:
    return {_key(alias): item for item in accelerators().values() for alias in (item.name, *item.aliases)}


def accelerator(name: str) -> Accelerator:
    """The device called `name`; case, spaces and hyphens do not matter. Raises RecipeError with the nearest names."""
    known = _by_key()
    if (found := known.get(_key(name))) is not None:
        return found
    number = re.match(r"\d+(?=\D)", name)
    if number is not None and (found := known.get(_key(name[number.end() :]))) is not None:
        raise RecipeError(f"{name} is not in the machine table. Did you mean {number[0]}x{found.name}?")
    near = difflib.get_close_matches(_key(name), known, n=3, cutoff=0.5)
    names = list(dict.fromkeys(known[key].name for key in near)) or list(accelerators())
    raise RecipeError(f"{name} is not in the machine table. " + ("Nearest: " if near else "There is: ") + f"{', '.join(names)}.")


def cluster(text: str) -> Cluster:
    """Read `64xH200`, `64 H200` or `H100` (one device). Raises RecipeError."""
    match = re.fullmatch(r"\s*(?:([0-9][0-9,_]*)\s*(?:[x×*]\s*|\s))?\s*(\S.*?)\s*", text)
    if match is None:
        raise RecipeError("a machine is written as COUNTxNAME, for example 64xH200.")
    count = int(re.sub(r"[,_]", "", match[1])) if match[1] else 1
    if count < 1:
        raise RecipeError(f"machine {text!r}: a cluster has at least one device.")
    if count > MOST_DEVICES:
        raise RecipeError(f"machine {text!r}: plans are made for {MOST_DEVICES:,} devices at most; no cluster has more. Give a smaller count.")
    turned = re.fullmatch(r"(\S.*?)\s*[x×*]\s*([0-9][0-9,_]*)", match[2])
    if match[1] is None and turned is not None and _key(turned[1]) in _by_key():
        raise RecipeError(f"a machine is written as COUNTxNAME: {turned[2]}x{_by_key()[_key(turned[1])].name}, not {text.strip()}.")
    return Cluster(accelerator=accelerator(match[2]), count=count)
