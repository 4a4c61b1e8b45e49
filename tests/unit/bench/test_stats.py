"""Medians and paired ratios."""

from __future__ import annotations

import math

import pytest

from bench.stats import Spread, paired_ratios, percentile_of, spread


def test_spread_is_median_low_high_and_count() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)


def test_spread_of_an_even_count_is_between_the_middle_two() -> None:
    assert spread([1.0, 2.0, 4.0, 8.0]) == Spread(3.0, 1.0, 8.0, 4)


def test_spread_skips_rounds_without_a_finite_value() -> None:
    assert spread([None, 5.0, math.nan, math.inf]) == Spread(5.0, 5.0, 5.0, 1)


def test_spread_of_nothing_is_none() -> None:
    assert spread([]) is None
    assert spread([None, None]) is None


def test_ratios_pair_values_of_the_same_round() -> None:
    # Both halve in the second round: the ratio does not move, that of the medians would say less.
    assert paired_ratios([10.0, 5.0, 12.0], [5.0, 2.5, 4.0]) == [2.0, 2.0, 3.0]


def test_a_round_that_lacks_a_side_has_no_ratio_and_shifts_no_other() -> None:
    assert paired_ratios([10.0, None, 12.0, 7.0], [5.0, 2.5, None, 7.0]) == [2.0, None, None, 1.0]


def test_a_zero_is_nothing_to_divide_by() -> None:
    assert paired_ratios([1.0], [0.0]) == [None]


def test_ratios_end_with_the_shorter_side() -> None:
    assert paired_ratios([4.0, 6.0], [2.0]) == [2.0]


def test_percentile_is_the_first_row_that_reaches_it() -> None:
    rows = [(0.0, 1.0), (50.0, 2.0), (98.0, 3.0), (99.5, 4.0)]
    assert percentile_of(rows, 50) == 2.0
    assert percentile_of(rows, 99) == 4.0


def test_percentile_that_no_row_reaches() -> None:
    with pytest.raises(ValueError, match="no row reaches 99 %"):
        percentile_of([(50.0, 2.0)], 99)
