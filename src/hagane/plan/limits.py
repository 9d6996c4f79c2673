"""How far published runs have gone: what a claim is held against. Every limit carries its source.

`usual` is what several public runs reached, `edge` the most anybody published or what a benchmark of a few steps reached; beyond it is impossible.
"""

from __future__ import annotations

from typing import NamedTuple

from hagane.errors import RecipeError
from hagane.recipe.types import Budget


class Limit(NamedTuple):
    """A limit from above (usual < edge) or from below (usual > edge), and where it comes from."""

    usual: float
    edge: float
    source: str


# Share of the dense 16-bit peak, model FLOPs only (Chowdhery et al. 2022, appendix B).
DENSE_UTILISATION = Limit(
    0.60, 0.70, "published dense runs: GPT-3 21 %, PaLM 46 %, Llama 3.1 405B 38-43 %, MegaScale 55 % (arXiv 2402.15627); best benchmark 56 % (arXiv 2205.05198)"
)
MOE_UTILISATION = Limit(0.40, 0.55, "published MoE runs: A.X K1 30 %, DeepSeek-V3 35 %; best benchmark 49 % (arXiv 2504.14960)")
MEASURED_UTILISATION = Limit(0.90, 1.0, "share of a measured matrix rate: less than all of it")
ORDINARY_UTILISATION = 0.40  # what a plan may count on: between the two lines above

# Below what anybody published a run is still possible, only wasteful: three-minute runs of hagane saw 0.36. A tenth of that is the edge.
FEWEST_PUBLISHED = (0.51, "MT-NLG")  # tokens a parameter
TOKENS_PER_PARAMETER = Limit(
    0.3, 0.03,
    f"the fewest published: {FEWEST_PUBLISHED[1]} {FEWEST_PUBLISHED[0]}, Gopher 1.1, PaLM 1.4; compute-optimal is 20 (Hoffmann et al. 2022); changes aim at 1",
)  # fmt: skip
USEFUL_TOKENS_PER_PARAMETER = 1.0  # what a changed plan aims at
OPTIMAL_TOKENS_PER_PARAMETER = 20

# The edge without a known number of experts is our assumption; with one it is top_k / experts, which is arithmetic.
ACTIVE_SHARE = Limit(0.018, 0.005, "the smallest shares of large released models: Kimi K3 1.8 % (2026), Kimi K2 3.2 %, DeepSeek-V3 5.5 %")

# Bytes a parameter takes while it is trained.
TRAINING_BYTES = Limit(
    16, 6, "16-bit weights and gradients, float32 master and two moments: 16 bytes (Rajbhandari et al. 2020, ZeRO); 16-bit with 8-bit moments: 6"
)

# Energy over device-hours x board power: idle phases below, hosts, network and cooling above.
ENERGY_LOW = Limit(0.4, 0.2, "Gopher drew 0.63 of its chips' board power")
ENERGY_HIGH = Limit(2.5, 5.0, "PaLM 2.1 and GLaM 1.9 times the chips' power, with hosts and cooling")

TEXT_BYTES = Limit(
    4e14 * 4.5, 4e15 * 4.5, "all text of the indexed web is 4e14 tokens (Villalobos et al. 2024, arXiv 2211.04325); ten times that with markup and copies"
)
READ_SHARE = Limit(0.1, 0.01, "filters keep a tenth to a hundredth of crawled text; what is never read is not trained on")
REPEATS = Limit(4, 1e9, "up to four readings are nearly as good as new text (Muennighoff et al. 2023); more is waste, not impossible")

# Largest training compute of which the makers published model and tokens, by year, attention included.
FRONTIER = {2020: (3.2e23, "GPT-3"), 2021: (8.7e23, "MT-NLG"), 2022: (2.56e24, "PaLM"), 2023: (3.8e24, "Falcon-180B"), 2024: (3.8e25, "Llama 3.1 405B")}
FRONTIER_ROOM = 0.1  # ten times the largest published run is the edge: makers do not publish everything


def frontier(year: int) -> tuple[float, str]:
    """FLOPs and name of the largest run published until the end of `year`; years before GPT-3 count as its own."""
    known = max((one for one in FRONTIER if one <= year), default=min(FRONTIER))
    return FRONTIER[known]


MOST_YEARS = 10  # of a run: the longest published ones took months, and no machine is kept for longer


def refuse_endless(seconds: float, budget: Budget | None) -> None:
    """Raises RecipeError where a plan takes longer than anybody waits."""
    years = seconds / (365.25 * 86400)
    if years > MOST_YEARS:
        raise RecipeError(
            f"{'That many training tokens' if budget is None else f'A budget of {budget}'} would take {years:,.3g} years on this machine, and no plan is made "
            f"for more than {MOST_YEARS}. Give a smaller one, or a larger machine (--machine 64xH200)."
        )
