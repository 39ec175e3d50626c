"""The published equations, transcribed: one sentence, one step, one source position at a time, in float64.

Nothing here is shared with the package but the names of the parameters. Vectors are 1-D tensors.
"""

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


CELLS = {"lstm": (lstm_cell, 2), "gru": (gru_cell, 1)}


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


def projected(p, query, value):
    """Query and value after the projections of --attention-dim, where they are there."""
    if "attention.query_projection.weight" in p:
        query = p["attention.query_projection.weight"] @ query
        value = p["attention_keys.projection.weight"] @ value
    return query, value


def dot(p, query, values, j):
    q, k = projected(p, query, values[j])
    return sum(q[i] * k[i] for i in range(len(q)))


def scaled_dot(p, query, values, j):
    size = len(projected(p, query, values[j])[1])
    return dot(p, query, values, j) / size**0.5


def general(p, query, values, j):
    q, k = projected(p, query, values[j])
    return k @ (p["attention.score.linear.weight"] @ q)


def additive(p, query, values, j):
    q = p["attention.query_projection.weight"] @ query
    k = p["attention_keys.projection.weight"] @ values[j]
    return p["attention.score.vector"] @ torch.tanh(q + k + p["attention.score.bias"])


def last(p, query, values, j):
    return torch.tensor(0.0 if j == len(values) - 1 else float("-inf"), dtype=torch.float64)


SCORES = {"dot": dot, "scaled_dot": scaled_dot, "general": general, "additive": additive, "last": last}


class Transcription:
    """One model, sentence by sentence.

    Args:
        model: the module whose parameters are read.
        cfg: its options, those that ``model_factory.config`` leaves unset filled in by the caller.
    """

    def __init__(self, model, cfg):
        self.cfg = cfg
        state = {name: value.detach().double() for name, value in model.state_dict().items()}
        self.encoder = {n[len("encoder.") :]: v for n, v in state.items() if n.startswith("encoder.")}
        self.decoder = {n[len("decoder.") :]: v for n, v in state.items() if n.startswith("decoder.")}
        self.parameters = {**self.encoder, **self.decoder}
        self.cell, self.state_tensors = CELLS[cfg.cell]

    @staticmethod
    def layer(side, depth, suffix=""):
        prefix = f"recurrence.layers.{depth}."
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        return {name: side[prefix + name + suffix] for name in names}

    def zeros(self, size):
        return tuple(torch.zeros(size, dtype=torch.float64) for _ in range(self.state_tensors))

    def read(self, parameters, inputs):
        state, outputs = self.zeros(self.cfg.encoder_hidden_size), []
        for x in inputs:
            state = self.cell(parameters, x, state)
            outputs.append(state[0])
        return outputs, state

    def encode(self, tokens):
        """Source tokens of one sentence, no padding → S values, and per layer the final state."""
        inputs, final = [self.encoder["embed_tokens.weight"][token] for token in tokens], []
        for depth in range(self.cfg.encoder_layers):
            outputs, state = self.read(self.layer(self.encoder, depth), inputs)
            if self.cfg.encoder_direction == "bi":
                backward, other = self.read(self.layer(self.encoder, depth, "_reverse"), inputs[::-1])
                outputs = [torch.cat(pair) for pair in zip(outputs, backward[::-1], strict=True)]
                state = tuple(torch.cat(pair) for pair in zip(state, other, strict=True))
            inputs = outputs
            final.append(state)
        return inputs, final

    def bridge(self, final):
        states = []
        for depth in range(self.cfg.decoder_layers):
            state = final[min(depth, len(final) - 1)]
            if self.cfg.bridge == "zero":
                state = self.zeros(self.cfg.decoder_hidden_size)
            if self.cfg.bridge == "linear":
                names = [f"bridge.projections.{depth}.{i}." for i in range(self.state_tensors)]
                state = tuple(
                    self.decoder[name + "weight"] @ part + self.decoder[name + "bias"]
                    for name, part in zip(names, state, strict=True)
                )
            states.append(state)
        return states

    def attend(self, query, values):
        score = SCORES[self.cfg.attention_score]
        scores = torch.stack([score(self.parameters, query, values, j) for j in range(len(values))])
        weights = NORMALIZERS[self.cfg.attention_normalizer](scores)
        return sum(weights[j] * values[j] for j in range(len(values))), weights

    def readout(self, state, word, context):
        chosen = self.cfg.readout_inputs.split(",")
        named = (("state", state), ("word", word), ("context", context))
        joined = torch.cat([value for name, value in named if name in chosen])
        if "readout.projection.weight" in self.decoder:
            joined = self.decoder["readout.projection.weight"] @ joined
        return torch.tanh(joined) if self.cfg.readout_activation == "tanh" else joined

    def __call__(self, source, previous):
        """Tokens of one sentence, no padding → T×V logits, T×S weights (None without attention)."""
        values, final = self.encode(source)
        states = self.bridge(final)
        attention = self.cfg.attention_score != "none"
        feed, logits, all_weights = None, [], []
        for token in previous:
            word = self.decoder["embed_tokens.weight"][token]
            inputs, context, weights = [word], None, None
            if attention and self.cfg.attention_query == "previous":
                context, weights = self.attend(states[-1][0], values)
                inputs.append(context)
            if self.cfg.input_feeding == "on":
                size = self.layer(self.decoder, 0)["weight_ih_l0"].size(1) - sum(map(len, inputs))
                inputs.append(torch.zeros(size, dtype=torch.float64) if feed is None else feed)
            below = torch.cat(inputs)
            for depth in range(self.cfg.decoder_layers):
                states[depth] = self.cell(self.layer(self.decoder, depth), below, states[depth])
                below = states[depth][0]
            if attention and self.cfg.attention_query == "current":
                context, weights = self.attend(below, values)
            feed = features = self.readout(below, word, context)
            if "projection.weight" in self.decoder:
                features = self.decoder["projection.weight"] @ features + self.decoder["projection.bias"]
            logits.append(self.decoder["vocabulary.weight"] @ features + self.decoder.get("vocabulary.bias", 0.0))
            all_weights.append(weights)
        return torch.stack(logits), torch.stack(all_weights) if attention else None
