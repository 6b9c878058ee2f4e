"""The estimated trade-off against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftc import InputError
from ftc.functional.tradeoff import TradeOff, effective_share, shifted_gamma

NUMBERS = st.integers(-30, 30).map(lambda n: n / 4)


@st.composite
def trade_offs(draw):
    margins = draw(st.lists(NUMBERS, min_size=1, max_size=30))
    hits = draw(st.lists(st.booleans(), min_size=len(margins), max_size=len(margins)))
    pool = draw(st.lists(st.tuples(NUMBERS, st.floats(0.01, 1)), min_size=1, max_size=30))
    pool_margins, posterior = (torch.tensor(v, dtype=torch.float64) for v in zip(*pool, strict=True))
    margin = torch.tensor(margins, dtype=torch.float64)
    return TradeOff(margin, torch.tensor(hits), pool_margins, posterior, 0.8)


@given(trade_offs(), NUMBERS)
def test_accuracies_are_those_of_a_loop(found, gamma):
    seen, absent = found.at(gamma)
    pairs = list(zip(found.margin.tolist(), found.hit.tolist(), strict=True))
    assert seen == pytest.approx(sum(hit and margin >= gamma for margin, hit in pairs) / len(pairs))
    masses = list(zip(found.pool_margin.tolist(), found.posterior.tolist(), strict=True))
    sent = sum(p for margin, p in masses if margin < gamma)
    assert absent == pytest.approx(0.8 * sent / sum(p for _, p in masses))


@given(trade_offs(), st.floats(0.01, 0.99))
def test_the_largest_gamma_leaves_the_floor_and_no_larger_one_does(found, floor):
    if floor > float(found.hit.double().mean()) + 1e-12:
        with pytest.raises(InputError, match="at most, without any absent class"):
            found.largest_gamma(floor)
        return
    gamma = found.largest_gamma(floor)
    assert found.at(gamma)[0] >= floor - 1e-9
    right = sorted(found.margin[found.hit].tolist())
    larger = [margin for margin in right if margin > gamma]
    # Beyond the margin that bounds the interval of γ a sample too many is lost, unless none is left to lose.
    assert not larger or found.at(larger[0] + 1e-6)[0] < floor + 1e-9


def test_without_a_pool_nothing_is_told_of_absent_classes():
    found = TradeOff(torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([True, False]))
    assert math.isnan(found.at(0.0)[1])
    assert found.best_gamma(0.5) is None
    seen, absent = found.intervals(0.0, replicates=50)
    assert seen[0] <= 0.5 <= seen[1] and all(map(math.isnan, absent))


@given(trade_offs(), NUMBERS)
def test_intervals_hold_the_estimate_roughly(found, gamma):
    seen, absent = found.at(gamma)
    of_seen, of_absent = found.intervals(gamma, replicates=200)
    assert of_seen[0] - 1e-9 <= seen <= of_seen[1] + 1e-9
    assert of_absent[0] - 0.2 <= absent <= of_absent[1] + 0.2


def test_more_absent_images_mean_a_larger_gamma():
    torch.manual_seed(0)
    seen, absent = torch.randn(300).double() + 2, torch.randn(300).double() - 2
    pool = torch.cat([seen, absent])
    found = TradeOff(seen, torch.ones(300, dtype=torch.bool), pool, torch.sigmoid(-4 * pool), 1.0)
    gammas = [found.best_gamma(share) for share in (0.05, 0.5, 0.95)]
    assert gammas == sorted(gammas) and gammas[0] < gammas[2]
    assert gammas[1] == pytest.approx(0, abs=0.3)


@given(st.floats(0.01, 0.99), st.floats(0.1, 10), st.floats(0.1, 10))
def test_costs_act_as_a_share(share, seen, absent):
    found = effective_share(share, seen, absent)
    odds = share / (1 - share) * absent / seen
    assert found / (1 - found) == pytest.approx(odds)
    assert effective_share(share, seen, seen) == pytest.approx(share)


@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.floats(0.2, 5))
def test_the_shift_changes_the_odds_of_absent_classes_as_the_share_does(before, after, temperature):
    logits = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)
    absent = torch.tensor([False, True, True])

    def odds(gamma):
        p = ((logits + gamma * absent) / temperature).softmax(0)
        return float(p[absent].sum() / p[~absent].sum())

    moved = shifted_gamma(0.7, before, after, temperature)
    wanted = odds(0.7) * (after / (1 - after)) / (before / (1 - before))
    assert odds(moved) == pytest.approx(wanted)
