"""Router rows that send each copy its share of the tokens, and the choice of the neurons to keep.

Shapes: T tokens, D model width, F feed-forward width, M copies.
"""

from __future__ import annotations

import torch

_SHRINKAGE = 0.1
"""Of the second moment towards a multiple of the identity: directions that the calibration text hardly shows
must not decide elsewhere."""
_SPREAD = 2.0
"""Standard deviation of a copy's score: routers of trained models are decided, not flat."""


def balanced_router(x_TD: torch.Tensor, num_copies: int, generator: torch.Generator) -> torch.Tensor:
    """Rows [M, D] in float32 whose scores over the inputs `x_TD` are uncorrelated, of mean 0 and equal variance.

    Random orthogonal directions in the whitened space of the inputs, orthogonal to their mean there: without
    that, the few directions in which all tokens look alike would send them all to one copy.
    """
    x_TD = x_TD.double()
    width = x_TD.shape[1]
    moment_DD = x_TD.T @ x_TD / len(x_TD)
    floor = float(moment_DD.trace()) / width
    moment_DD = (1 - _SHRINKAGE) * moment_DD + _SHRINKAGE * floor * torch.eye(width, dtype=torch.float64)
    root_DD = torch.linalg.cholesky(moment_DD)
    mean_D1 = torch.linalg.solve_triangular(root_DD, x_TD.mean(0)[:, None], upper=False)
    draws_DM = torch.randn((width, num_copies), generator=generator, dtype=torch.float64)
    # The first column of the basis is the mean's direction, the others are orthogonal to it and to each other.
    basis_DM = torch.linalg.qr(torch.cat([mean_D1, draws_DM], dim=1)).Q[:, 1:]
    rows_DM: torch.Tensor = torch.linalg.solve_triangular(root_DD.T, basis_DM, upper=True)
    # Shrinkage left the directions unequal: the widest would win most often.
    return (_SPREAD * rows_DM / (x_TD @ rows_DM).std(0).clamp_min(1e-12)).T.float()


def copy_loads(x_TD: torch.Tensor, router_MD: torch.Tensor) -> list[float]:
    """Share of the tokens that chooses each copy; 1 / M each is balance."""
    chosen_T = (x_TD @ router_MD.T).argmax(-1)
    return [int((chosen_T == copy).sum()) / len(x_TD) for copy in range(len(router_MD))]


def neuron_importance(hidden_TF: torch.Tensor, down_DF: torch.Tensor) -> torch.Tensor:
    """What each neuron adds to the output on average: mean |h_j| times the norm of its column of `down`: [F]."""
    return hidden_TF.abs().mean(0) * down_DF.square().sum(0).sqrt()


def kept_neurons(importance_F: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` most important neurons in the order of the source, so that quantisation groups stay together."""
    return importance_F.topk(count).indices.sort().values
