"""Least-squares fits."""

import torch

from slimcv.surgery import fit_linear


def test_a_linear_relation_is_found_again():
    weight, bias, features = torch.randn(4, 10), torch.randn(4), torch.randn(60, 10)
    found, offset = fit_linear(features, features @ weight.T + bias, prior=torch.zeros(4, 10))
    torch.testing.assert_close(found.float(), weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(offset.float(), bias, rtol=1e-3, atol=1e-3)


def test_directions_without_data_keep_the_prior():
    prior, features = torch.randn(4, 10), torch.randn(60, 10)
    features[:, 3:] = 0.0
    found, _ = fit_linear(features, torch.randn(60, 4), prior=prior)
    torch.testing.assert_close(found[:, 3:].float(), prior[:, 3:], rtol=1e-5, atol=1e-5)


def test_pure_noise_is_not_fitted():
    prior = torch.zeros(1, 40)
    found, _ = fit_linear(torch.randn(60, 40), torch.randn(60, 1), prior=prior)
    assert float(found.norm()) < 0.5


def test_constant_features_give_the_mean():
    found, bias = fit_linear(torch.ones(6, 3), torch.arange(6.0)[:, None], prior=torch.zeros(1, 3))
    assert float(found.abs().max()) == 0.0
    assert float(bias) == 2.5
