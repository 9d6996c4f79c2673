"""What somebody says about a model: the six facts (model, parameters, hardware, training time, country, year) and what else is given.

A claim is a TOML file. The six facts must stand there; one that was not published is written "unknown". `judge` says whether they can all be true.
"""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hagane.errors import RecipeError
from hagane.plan.machines import accelerator
from hagane.recipe.load import checked, parse_toml, read_text
from hagane.recipe.types import Frozen

UNKNOWN = "unknown"


def _known(value: Any) -> Any:
    return None if value == UNKNOWN else value


class Hardware(Frozen):
    """Devices of one kind. Rates come from the machine table, or from a measurement where `peak_flops` is given. None is unknown."""

    accelerator: str | None = Field(description="a name of the machine table, or any name where peak_flops is given")
    count: int | None = Field(ge=1, le=10**9, description="devices")
    peak_flops: float | None = Field(None, ge=1, le=1e18, description="measured matrix rate of one device, FLOP/s")
    memory_bytes: float | None = Field(None, ge=1, le=1e18, description="memory of one device")
    watts: float | None = Field(None, ge=1e-3, le=1e9, description="power of one device under load")

    _unknown = field_validator("*", mode="before")(_known)

    @model_validator(mode="after")
    def _in_table(self) -> Hardware:
        if self.accelerator is not None and self.peak_flops is None:
            try:
                accelerator(self.accelerator)
            except RecipeError as error:
                raise ValueError(f"accelerator {str(error).rstrip('.')}; a machine of your own needs peak_flops") from None
        return self

    @property
    def measured(self) -> bool:
        return self.peak_flops is not None

    def peak(self) -> float | None:
        """Dense 16-bit matrix rate of one device, FLOP/s."""
        return self.peak_flops or (accelerator(self.accelerator).rate("bf16") if self.accelerator else None)

    def memory(self) -> float | None:
        """Bytes of one device."""
        return self.memory_bytes or (accelerator(self.accelerator).memory_bytes if self.accelerator and not self.measured else None)

    def power(self) -> float | None:
        """Watts of one device under full load."""
        return self.watts or (accelerator(self.accelerator).watts if self.accelerator and not self.measured else None)

    def released(self) -> int | None:
        """Year of the first deliveries."""
        return accelerator(self.accelerator).released if self.accelerator and not self.measured else None

    def __str__(self) -> str:
        return f"{'an unknown number of' if self.count is None else f'{self.count:,} x'} {self.accelerator or 'unknown accelerators'}"


class Claim(Frozen):
    """The facts of a model as published. Parameters, tokens and FLOPs are counts; None is unknown.

    The bounds are wider than any claim and keep every product of the arithmetic finite.
    """

    name: str = Field(description="the model")
    source: tuple[str, ...] = Field(min_length=1, description="where the facts stand")
    parameters: float | None = Field(ge=1, le=1e18, description="all of them")
    hardware: tuple[Hardware, ...] | None
    days: float | None = Field(ge=1e-6, le=36525, description="training time")
    country: str | None
    year: int | None = Field(ge=1950, le=2100)
    note: str = Field("", description="what a reader should know about these facts")
    architecture: Literal["dense", "moe"] | None = Field(None, description="dense: every parameter is used for every token")
    active_parameters: float | None = Field(None, ge=1, le=1e18, description="used for one token")
    experts: int | None = Field(None, ge=2, description="routed experts of a layer")
    top_k: int | None = Field(None, ge=1, description="routed experts that a token uses")
    layers: int | None = Field(None, ge=1, le=10**5)
    width: int | None = Field(None, ge=1, le=10**7, description="heads x head dimension: what attention works on")
    context: int | None = Field(None, ge=1, le=10**9, description="tokens of a training sequence")
    tokens: float | None = Field(None, ge=1, le=1e20, description="training tokens, repeats counted")
    corpus_bytes: float | None = Field(None, ge=1, le=1e24, description="text that is said to be trained on")
    bytes_per_token: float | None = Field(None, ge=0.1, le=1000)
    epochs: float | None = Field(None, ge=1e-3, le=1e6, description="how often the corpus was read")
    flops: float | None = Field(None, ge=1, le=1e40, description="training FLOPs as published")
    device_hours: float | None = Field(None, ge=1e-6, le=1e15, description="of all devices together")
    utilisation: float | None = Field(None, ge=1e-6, description="share of the peak rate, 0.4 for 40 %")
    energy_mwh: float | None = Field(None, ge=1e-12, le=1e12)

    _unknown = field_validator("*", mode="before")(_known)

    @field_validator("source", "hardware", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | dict) and value != UNKNOWN else _known(value)

    @field_validator("utilisation")
    @classmethod
    def _share(cls, value: float | None) -> float | None:
        if value is not None and value > 2:
            raise ValueError("a share of the peak is written 0.4 for 40 %")
        return value

    @model_validator(mode="after")
    def _contradictions(self) -> Claim:
        if self.active_parameters and self.parameters and self.active_parameters > self.parameters:
            raise ValueError(f"active_parameters = {self.active_parameters:g} is more than parameters = {self.parameters:g}")
        if self.architecture == "dense" and self.active_parameters not in (None, self.parameters):
            raise ValueError("a dense model uses all its parameters; leave active_parameters out, or write architecture = 'moe'")
        if self.top_k and self.experts and self.top_k > self.experts:
            raise ValueError(f"top_k = {self.top_k} is more than experts = {self.experts}")
        if self.device_hours and len(self.hardware or ()) > 1:
            raise ValueError("device_hours of several kinds of hardware cannot be told apart; give count and days")
        return self

    @property
    def active(self) -> float | None:
        """Parameters that one token uses; all of a dense model."""
        return self.active_parameters or (self.parameters if self.architecture == "dense" else None)

    @property
    def measured(self) -> bool:
        """Whether utilisation is a share of measured rates instead of datasheet peaks."""
        return any(item.measured for item in self.hardware or ())

    def hours(self) -> tuple[tuple[Hardware, float], ...] | None:
        """Device-hours of every kind of hardware; None where they cannot be known."""
        if not self.hardware:
            return None
        if self.device_hours is not None:
            return ((self.hardware[0], self.device_hours),)
        if self.days is None or any(item.count is None for item in self.hardware):
            return None
        return tuple((item, (item.count or 0) * self.days * 24) for item in self.hardware)

    def full_flops(self) -> float | None:
        """FLOPs the hardware could do in the training time at 100 % of its peak."""
        hours = self.hours()
        if hours is None or any(item.peak() is None for item, _ in hours):
            return None
        return sum((item.peak() or 0.0) * count * 3600 for item, count in hours)

    def flops_per_token(self) -> float | None:
        """Training FLOPs of one token: 6 per active parameter (Kaplan et al. 2020), and causal attention where its shape is known."""
        if self.active is None:
            return None
        attention = 6 * self.layers * self.width * self.context if self.layers and self.width and self.context else 0
        return 6 * self.active + attention

    def needed_flops(self) -> float | None:
        """Training FLOPs as published, else tokens x FLOPs of a token."""
        per_token = self.flops_per_token()
        return self.flops or (per_token * self.tokens if per_token and self.tokens else None)

    def unknown(self) -> list[str]:
        """Those of the six facts, and of what the arithmetic needs, that are not known."""
        kinds = self.hardware or ()
        facts: dict[str, Any] = {
            "parameters": self.parameters, "hardware": kinds and all(item.accelerator for item in kinds),
            "number of devices": not kinds or self.device_hours or all(item.count for item in kinds), "training time": self.days or self.device_hours,
            "country": self.country, "year": self.year, "active parameters": self.active, "tokens": self.tokens,
        }  # fmt: skip
        return [name for name, value in facts.items() if not value]


def shipped_claims() -> dict[str, str]:
    """Name -> text of every claim that comes with hagane."""
    folder = resources.files("hagane.plan") / "claims"
    files = sorted(folder.iterdir(), key=lambda item: item.name)
    return {item.name.removesuffix(".toml"): item.read_text(encoding="utf-8") for item in files if item.name.endswith(".toml")}


def load_claim(name_or_file: str) -> Claim:
    """A shipped claim by name, or a claim of the user's own from a TOML file. Raises RecipeError."""
    path = Path(name_or_file)
    if path.suffix == ".toml" or path.is_file():
        text, where = read_text(path, "claim", "`hagane plan NAME --claim` knows the shipped ones."), f"claim {path.name}"
    else:
        shipped = shipped_claims()
        if name_or_file not in shipped:
            near = difflib.get_close_matches(name_or_file.lower(), shipped, n=3, cutoff=0.5)
            hint = f"Nearest: {', '.join(near)}." if near else f"There is: {', '.join(shipped)}."
            raise RecipeError(f"there is no claim {name_or_file!r}. {hint} A file of your own ends in .toml.")
        text, where = shipped[name_or_file], f"claim {name_or_file}"
    return checked(Claim, parse_toml(text, where), where, noun="fact")
