"""Least squares from second moments."""

import torch

from slimcv.surgery.moments import factorise, fit_towards, moments, principal, rank_for, shrinkage

ZERO = (torch.zeros(()), torch.zeros(()))


def test_a_linear_relation_is_found_again():
    weight, x = torch.randn(4, 10), torch.randn(200, 10)
    fitting, held_out = (moments(part, part @ weight.T, about=ZERO) for part in (x[:150], x[150:]))
    found = fit_towards(fitting, held_out, prior=torch.zeros(4, 10))
    torch.testing.assert_close(found, weight, rtol=1e-2, atol=1e-2)
    assert held_out.error(found) < 1e-4 < held_out.error(torch.zeros(4, 10))


def test_noise_leaves_the_prior():
    prior = torch.zeros(4, 40)
    fitting, held_out = (moments(torch.randn(60, 40), torch.randn(60, 4), about=ZERO) for _ in range(2))
    assert fit_towards(fitting, held_out, prior=prior) is prior


def test_the_error_is_the_squared_one_over_the_power():
    x, y, weight = torch.randn(50, 6), torch.randn(50, 3), torch.randn(3, 6)
    expected = (x @ weight.T - y).square().sum() / y.square().sum()
    torch.testing.assert_close(torch.tensor(moments(x, y, about=ZERO).error(weight)), expected)


def test_factors_keep_what_the_inputs_reach_and_not_what_the_weight_alone_shows():
    weight = torch.diag(torch.tensor([100.0, 3.0, 2.0, 1.0]))
    x = torch.randn(500, 4)
    x[:, 0] = 0.0
    directions, energy = principal(weight, x, shrinkage=0.0)
    factors = factorise(weight, directions, energy, rank=3)
    torch.testing.assert_close(x @ factors.reduce.T @ factors.expand.T, x @ weight.T, rtol=1e-3, atol=1e-3)
    assert factors.energy > 0.9999
    assert rank_for(energy, 0.999) == 3


def test_no_factors_of_the_rank_are_nearer():
    weight, x = torch.randn(8, 12), torch.randn(400, 12) * torch.linspace(0.1, 3, 12)
    directions, energy = principal(weight, x, shrinkage=0.0)
    factors = factorise(weight, directions, energy, rank=3)
    wanted = x @ weight.T
    error = (x @ factors.reduce.T @ factors.expand.T - wanted).square().sum()
    singular = torch.linalg.svdvals(wanted)
    torch.testing.assert_close(error, singular[3:].square().sum(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        torch.tensor(factors.energy),
        singular[:3].square().sum() / singular.square().sum(),
        rtol=1e-4,
        atol=0.0,
    )


def test_few_features_are_trusted_less():
    many, few = torch.randn(4000, 20) * torch.linspace(0.1, 3, 20), torch.randn(10, 200)
    assert shrinkage(many) < 0.02
    assert shrinkage(few) > 0.8
    weight = torch.randn(50, 200)
    _, energy = principal(weight, few, shrinkage=shrinkage(few))
    assert rank_for(energy, 0.9) > 10
