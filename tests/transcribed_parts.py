"""Equations of cells and normalisers, transcribed: one vector at a time, in float64."""

import torch


def lstm_cell(p, x, state):
    """Hochreiter and Schmidhuber (1997); torch's order of gates: i, f, g, o."""
    h, c = state
    n = len(h)
    z = p["weight_ih_l0"] @ x + p["bias_ih_l0"] + p["weight_hh_l0"] @ h + p["bias_hh_l0"]
    i, f, g, o = (z[k * n : (k + 1) * n] for k in range(4))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_cell(p, x, state):
    """Cho et al. (2014), the reset gate after the product, as in torch; order of gates: r, z, n."""
    (h,) = state
    n = len(h)
    a = p["weight_ih_l0"] @ x + p["bias_ih_l0"]
    b = p["weight_hh_l0"] @ h + p["bias_hh_l0"]
    r = torch.sigmoid(a[:n] + b[:n])
    z = torch.sigmoid(a[n : 2 * n] + b[n : 2 * n])
    new = torch.tanh(a[2 * n :] + r * b[2 * n :])
    return ((1 - z) * new + z * h,)


def gru_reset_before_cell(p, x, state):
    """Cho et al. (2014), eq. 5 to 8: the reset gate before the product."""
    (h,) = state
    n = len(h)
    w, u, b = p["weight_ih_l0"], p["weight_hh_l0"], p["bias_ih_l0"] + p["bias_hh_l0"]
    r = torch.sigmoid(w[:n] @ x + u[:n] @ h + b[:n])
    z = torch.sigmoid(w[n : 2 * n] @ x + u[n : 2 * n] @ h + b[n : 2 * n])
    new = torch.tanh(w[2 * n :] @ x + u[2 * n :] @ (r * h) + b[2 * n :])
    return ((1 - z) * new + z * h,)


def rnn_cell(p, x, state):
    """Elman (1990)."""
    (h,) = state
    return (torch.tanh(p["weight_ih_l0"] @ x + p["bias_ih_l0"] + p["weight_hh_l0"] @ h + p["bias_hh_l0"]),)


CELLS = {
    "lstm": (lstm_cell, 2),
    "gru": (gru_cell, 1),
    "gru_reset_before": (gru_reset_before_cell, 1),
    "rnn": (rnn_cell, 1),
}


def softmax(scores):
    powers = [torch.exp(e) for e in scores]
    return torch.stack([power / sum(powers) for power in powers])


def sparsemax(scores):
    """The threshold tau of Martins and Astudillo (2016), algorithm 1."""
    ordered = sorted(scores, reverse=True)
    support = max(k for k in range(1, len(ordered) + 1) if 1 + k * ordered[k - 1] > sum(ordered[:k]))
    tau = (sum(ordered[:support]) - 1) / support
    return torch.stack([torch.clamp(e - tau, min=0) for e in scores])


def entmax15(scores):
    """Peters et al. (2019): a(j) = max(e(j)/2 - tau, 0)^2, tau found by bisection so that the weights sum to one."""
    halves = scores / 2
    low, high = halves.max() - 1, halves.max()
    for _ in range(100):
        tau = (low + high) / 2
        if (torch.clamp(halves - tau, min=0) ** 2).sum() > 1:
            low = tau
        else:
            high = tau
    return torch.clamp(halves - tau, min=0) ** 2


NORMALIZERS = {"softmax": softmax, "sparsemax": sparsemax, "entmax15": entmax15}
