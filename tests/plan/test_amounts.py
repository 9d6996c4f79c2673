"""The unit of an amount follows its size, so that none is written as a row of zeros."""

import pytest

from hagane.plan.amounts import amount, dollars, energy, in_words


@pytest.mark.parametrize(
    ("joules", "shown"),
    [(0, "0 Wh"), (120, "0.0333 Wh"), (9072, "2.52 Wh"), (3.59e8, "99.7 kWh"), (3.5998e9, "1 MWh"), (8.1285e10, "22.6 MWh"), (4.32e12, "1,200 MWh")],
)
def test_energy(joules, shown):
    assert energy(joules) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 USD"), (0.0004, "less than 0.001 USD"), (0.005, "0.005 USD"), (0.0183, "0.018 USD"), (0.05, "0.05 USD"),
        (0.4, "0.40 USD"), (3, "3 USD"), (4.256, "4.26 USD"), (40.3, "40.3 USD"), (999.7, "1,000 USD"),
        (122_573, "123,000 USD"), (999_800, "1 million USD"), (12.34e6, "12.3 million USD"), (2.5e9, "2.5 billion USD"),
    ],
)  # fmt: skip
def test_dollars(value, shown):
    assert dollars(value) == shown


def test_counts():
    values = (7, 999.7, 18_204, 999_999, 32_139_028_992, 1.627e12)
    assert [in_words(value) for value in values] == ["7", "1,000", "18,204", "1 million", "32.1 billion", "1.63 trillion"]
    assert [amount(1e18), amount(1e18, "B"), amount(-2500)] == ["1E", "1 EB", "-2.5k"]
    assert [amount(11e9, "B"), amount(12e9, gap=True)] == ["11 GB", "12 B"]
