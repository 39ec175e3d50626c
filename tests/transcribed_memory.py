"""Equations of what attention remembers, transcribed: one sentence, one step, one source position at a time.

Nothing here is shared with the package but the names of the parameters. Vectors are 1-D tensors.
"""

from types import SimpleNamespace

import torch
from torch.nn.functional import softplus


def zeros(*shape):
    return torch.zeros(shape, dtype=torch.float64)


# Histories: what is remembered first, the feature of position j, what is remembered after a step


def coverage_after(p, cfg, covered, weights, values, query):
    """Tu et al. (2016), eq. 7, Φ = 1."""
    return covered + weights


def fertility_after(p, cfg, covered, weights, values, query):
    """Tu et al. (2016), eq. 8 and 9."""
    most = cfg.attention_fertility or 2.0
    w = p["attention.history.fertility.weight"][0]
    return torch.stack([
        covered[j] + weights[j] / (most * torch.sigmoid(w @ values[j])) for j in range(len(values))
    ])  # fmt: skip


def gru_after(p, cfg, covered, weights, values, query):
    """Tu et al. (2016), eq. 6; the reset gate after the product, as in torch; order of gates: r, z, n."""
    part = {name[len("attention.history.") :]: value for name, value in p.items() if ".history." in name}
    after = []
    for j in range(len(values)):
        x = part["of_value.weight"] @ values[j] + part["of_value.bias"]
        x = x + part["of_weight.weight"][:, 0] * weights[j] + part["of_query.weight"] @ query
        y = part["of_state.weight"] @ covered[j] + part["of_state.bias"]
        n = len(covered[j])
        r, z = torch.sigmoid(x[:n] + y[:n]), torch.sigmoid(x[n : 2 * n] + y[n : 2 * n])
        new = torch.tanh(x[2 * n :] + r * y[2 * n :])
        after.append((1 - z) * new + z * covered[j])
    return torch.stack(after)


def location_feature(p, cfg, remembered, j):
    """Chorowski et al. (2015), eq. 8: filter i at position j is the sum over o of F[i, o] a[j + o - w/2]."""
    filters = p["attention.history.filters.weight"]  # d×channels×w
    over = {"weights": ["last"], "sum": ["sum"], "both": ["last", "sum"]}[cfg.attention_history_over or "weights"]
    feature = zeros(len(filters))
    for channel, name in enumerate(over):
        signal, width = remembered[name], filters.size(2)
        for offset in range(width):
            at = j + offset - width // 2
            if 0 <= at < len(signal):
                feature = feature + filters[:, channel, offset] * signal[at]
    return feature


def location_after(p, cfg, remembered, weights, values, query):
    return {"last": weights, "sum": remembered["sum"] + weights}


def one_number(p, cfg, covered, j):
    return covered[j : j + 1]


HISTORIES = {
    "coverage": SimpleNamespace(first=lambda cfg, n: zeros(n), feature=one_number, after=coverage_after),
    "fertility": SimpleNamespace(first=lambda cfg, n: zeros(n), feature=one_number, after=fertility_after),
    "gru_coverage": SimpleNamespace(
        first=lambda cfg, n: zeros(n, cfg.attention_history_size or 10),
        feature=lambda p, cfg, covered, j: covered[j],
        after=gru_after,
    ),
    "location": SimpleNamespace(
        first=lambda cfg, n: {"last": zeros(n), "sum": zeros(n)}, feature=location_feature, after=location_after
    ),
}


# Windows: the centre at target position t, both counted from 0


def local_m(p, query, t, length):
    """Luong et al. (2015), section 3.2: p = t, here never beyond the last token."""
    return float(min(t, length - 1))


def local_p(p, query, t, length):
    """Luong et al. (2015), eq. 9."""
    hidden = torch.tanh(p["attention.window.hidden.weight"] @ query)
    return length * torch.sigmoid(p["attention.window.vector.weight"][0] @ hidden)


WINDOWS = {"local_m": local_m, "local_p": local_p}


# Addressings: a(0), and a(t)


def start(cfg, length):
    place = cfg.attention_addressing_start or "uniform"
    weights = torch.full((length,), 1.0 / length, dtype=torch.float64)
    if place != "uniform":
        weights = zeros(length)
        weights[0 if place == "first" else length - 1] = 1.0
    return weights


def shift(p, cfg, weights, query, before):
    """Graves et al. (2014), eq. 7 to 9; 1e-9 before the power."""
    width = cfg.attention_shift_width or 3
    maps = p["attention.addressing.maps.weight"] @ query + p["attention.addressing.maps.bias"]
    g, gamma, exponents = torch.sigmoid(maps[0]), 1 + softplus(maps[1]), torch.exp(maps[2:])
    length = len(weights)
    mixed = [g * weights[j] + (1 - g) * before[j] for j in range(length)]
    moved = []
    for j in range(length):
        terms = [exponents[k] / exponents.sum() * mixed[(j - (k - width // 2)) % length] for k in range(width)]
        moved.append(sum(terms))
    powers = torch.stack([(m + 1e-9) ** gamma for m in moved])
    return powers / powers.sum()


def monotonic(p, cfg, scores, query, before):
    """Raffel et al. (2017), eq. 8 to 11, as a product over the tokens passed; the last token takes the rest."""
    stay = torch.sigmoid(scores + p["attention.addressing.bias"])
    if cfg.attention_monotonic_search == "hard":
        stay = (stay > 0.5).double()
    stay = torch.cat([stay[:-1], torch.ones(1, dtype=torch.float64)])
    weights = []
    for j in range(len(stay)):
        arrived = zeros()
        for k in range(j + 1):
            passed = before[k]
            for between in range(k, j):
                passed = passed * (1 - stay[between])
            arrived = arrived + passed
        weights.append(stay[j] * arrived)
    return torch.stack(weights)


def on_the_first(cfg, length):
    return torch.cat([torch.ones(1, dtype=torch.float64), zeros(length - 1)])


ADDRESSINGS = {
    "shift": SimpleNamespace(first=start, step=shift, takes_scores=False),
    "monotonic": SimpleNamespace(first=on_the_first, step=monotonic, takes_scores=True),
}
