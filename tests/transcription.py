"""The published equations, transcribed: one sentence, one step, one source position at a time, in float64.

Nothing here is shared with the package but the names of the parameters. Vectors are 1-D tensors.
"""

import math

import torch
from transcribed_memory import ADDRESSINGS, HISTORIES, WINDOWS
from transcribed_parts import CELLS, NORMALIZERS


def unit(x):
    return x / sum(number * number for number in x) ** 0.5


def query_and_key(p, query, values, j, of_key=lambda k: k):
    """q and k(j), after the projections of --attention-dim, where they are there, and what a history adds to k."""
    k = values[j]
    if "attention.query_projection.weight" in p:
        query = p["attention.query_projection.weight"] @ query
        k = p["attention_keys.projection.weight"] @ k
    k = of_key(k)
    return query, k + p["history"][j] if "history" in p else k


def dot(p, query, values, j):
    q, k = query_and_key(p, query, values, j)
    return sum(q[i] * k[i] for i in range(len(q)))


def scaled_dot(p, query, values, j):
    size = len(query_and_key(p, query, values, j)[1])
    return dot(p, query, values, j) / size**0.5


def cosine(p, query, values, j):
    q, k = query_and_key(p, query, values, j, of_key=unit)
    return torch.exp(p["attention.score.log_scale"]) * (unit(q) @ k)


def general(p, query, values, j):
    q, k = query_and_key(p, query, values, j)
    return k @ (p["attention.score.linear.weight"] @ q + p.get("attention.score.linear.bias", 0.0))


def additive(p, query, values, j):
    q, k = query_and_key(p, query, values, j)
    hidden = torch.tanh(q + k + p.get("attention.score.bias", 0.0))
    for layer in range(sum("score.layers" in name and "weight" in name for name in p)):
        weight, bias = (p[f"attention.score.layers.{layer}.{name}"] for name in ("weight", "bias"))
        hidden = torch.tanh(weight @ hidden + bias)
    return p["attention.score.vector"] @ hidden


def normed_additive(p, query, values, j):
    u = p["attention.score.vector"]
    return p["attention.score.scale"] * additive(p, query, values, j) / sum(x * x for x in u) ** 0.5


def location(p, query, values, j):
    row = p["attention.score.linear.weight"][j]
    return row @ query + (p["attention.score.linear.bias"][j] if "attention.score.linear.bias" in p else 0.0)


def last(p, query, values, j):
    return torch.tensor(0.0 if j == len(values) - 1 else float("-inf"), dtype=torch.float64)


SCORES = {
    "dot": dot,
    "scaled_dot": scaled_dot,
    "cosine": cosine,
    "general": general,
    "additive": additive,
    "concat": additive,
    "normed_additive": normed_additive,
    "location": location,
    "last": last,
}


def layer_norm(p, x):
    """Ba et al. (2016), eq. 4; torch's epsilon."""
    deviation = ((x - x.mean()) ** 2).mean()
    return p["weight"] * (x - x.mean()) / torch.sqrt(deviation + 1e-5) + p["bias"]


ACTIVATIONS = {
    "none": lambda x: x,
    "tanh": torch.tanh,
    "relu": lambda x: torch.clamp(x, min=0),
    "maxout": lambda x: torch.stack([torch.maximum(x[2 * j], x[2 * j + 1]) for j in range(len(x) // 2)]),
}


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
        self.source_symbols = model.encoder.dictionary.symbols
        self.target_symbols = model.decoder.dictionary.symbols

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

    def leave(self, side, depth, h, below):
        """What leaves a layer: residual connection from the second layer on, then layer norm."""
        if self.cfg.residual_connections and depth and below is not None:
            h = h + below
        if f"recurrence.norms.{depth}.weight" in side:
            names = ("weight", "bias")
            h = layer_norm({name: side[f"recurrence.norms.{depth}.{name}"] for name in names}, h)
        return h

    def front(self, words):
        """What the recurrence reads of a sentence's embeddings."""
        activation = ACTIVATIONS[self.cfg.encoder_front_activation or "tanh"]
        for depth in range(0 if self.cfg.encoder_front == "none" else self.cfg.encoder_front_layers or 1):
            weight, bias = (self.encoder[f"front.layers.{depth}.{name}"] for name in ("weight", "bias"))
            if self.cfg.encoder_front == "dense":
                words = [activation(weight @ word + bias) for word in words]
                continue
            middle = weight.size(2) // 2
            sums = [bias.clone() for _ in words]
            for j in range(len(words)):
                for k in range(-middle, middle + 1):
                    if 0 <= j + k < len(words):
                        sums[j] += weight[:, :, middle + k] @ words[j + k]
            words = [activation(total) for total in sums]
        return words

    @staticmethod
    def pairs(vectors):
        """Chan et al. (2016), eq. 5: [x(2i); x(2i+1)], zeros beside an odd last one."""
        even, odd = vectors[::2], vectors[1::2]
        if len(odd) < len(even):
            odd = [*odd, torch.zeros_like(even[-1])]
        return [torch.cat(pair) for pair in zip(even, odd, strict=True)]

    def over_tokens(self, weights, length):
        """Weights of a pyramid's positions → of its ``length`` tokens: half a pair's each, an odd last one's whole."""
        lengths = [length]
        for _ in range(self.cfg.encoder_pyramid - 1):
            lengths.append(math.ceil(lengths[-1] / 2))
        for size in reversed(lengths[: self.cfg.encoder_pyramid]):
            alone = size - 1 if size % 2 else None
            weights = torch.stack([weights[j // 2] / (1 if j == alone else 2) for j in range(size)])
        return weights

    def encode(self, tokens):
        """Source tokens of one sentence, no padding → S values, and per layer the final state."""
        words, final = [self.encoder["embed_tokens.weight"][token] for token in tokens], []
        inputs = self.front(words)
        for depth in range(self.cfg.encoder_layers):
            joins = 1 <= depth <= self.cfg.encoder_pyramid
            if joins:
                inputs, words = self.pairs(inputs), self.pairs(words)
            outputs, state = self.read(self.layer(self.encoder, depth), inputs)
            if self.cfg.encoder_direction == "bi":
                backward, other = self.read(self.layer(self.encoder, depth, "_reverse"), inputs[::-1])
                outputs = [torch.cat(pair) for pair in zip(outputs, backward[::-1], strict=True)]
                state = tuple(torch.cat(pair) for pair in zip(state, other, strict=True))
            pairs = zip(outputs, inputs, strict=True)
            inputs = [self.leave(self.encoder, depth, output, None if joins else below) for output, below in pairs]
            final.append(state)
        if "output.weight" in self.encoder:
            inputs = [self.encoder["output.weight"] @ h for h in inputs]
        return self.found(inputs, words), final

    def found(self, states, words):
        """What the attention finds at each position: what keys are made of, and the values."""
        keys = values = states
        if self.cfg.attention_key_value == "split":
            half = len(states[0]) // 2
            keys, values = ([state[:half] for state in states], [state[half:] for state in states])
        if "word" in (self.cfg.attention_value_inputs or "state"):
            keys, values = ([torch.cat(pair) for pair in zip(part, words, strict=True)] for part in (keys, values))
        if "attention_values.weight" in self.encoder:
            values = [self.encoder["attention_values.weight"] @ value for value in values]
        return keys, values

    def bridge(self, final, values):
        states = []
        for depth in range(self.cfg.decoder_layers):
            state = final[min(depth, len(final) - 1)]
            if self.cfg.bridge == "zero":
                state = self.zeros(self.cfg.decoder_hidden_size)
            if self.cfg.bridge == "shared":  # h of the top layer, by one map, is h and c of every layer
                h = self.decoder["bridge.projection.weight"] @ final[-1][0] + self.decoder["bridge.projection.bias"]
                states.append((torch.tanh(h),) * self.state_tensors)
                continue
            if self.cfg.bridge == "mean":
                state = (sum(values) / len(values),) * self.state_tensors
            if self.cfg.bridge == "backward":
                state = tuple(part[self.cfg.encoder_hidden_size :] for part in state)
            if self.cfg.bridge not in ("zero", "copy"):
                names = [f"bridge.projections.{depth}.{i}." for i in range(self.state_tensors)]
                state = tuple(
                    self.decoder[name + "weight"] @ part + self.decoder[name + "bias"]
                    for name, part in zip(names, state, strict=True)
                )
            if self.cfg.bridge in ("tanh", "mean", "backward"):
                state = tuple(torch.tanh(part) for part in state)
            states.append(state)
        return states

    def attention_heads(self):
        """Parameters of each head, under the names that they have where there is one."""
        count = self.cfg.attention_heads
        if count == 1:
            return [dict(self.parameters)]
        return [
            {name.replace(f"heads.{i}.", ""): value for name, value in self.parameters.items() if f"heads.{i}." in name}
            for i in range(count)
        ]

    def attend(self, query, found, t, memories):
        """Every head at step t, of which ``memories`` has what it remembers → context, weights."""
        keys, values = found
        heads, contexts, all_weights = self.attention_heads(), [], []
        size = len(values[0]) // len(heads)
        for i, p in enumerate(heads):
            own = [value[i * size : (i + 1) * size] for value in values]
            weights = self.attend_head(p, query, keys, own, t, memories.setdefault(i, {}))
            contexts.append(sum(weights[j] * own[j] for j in range(len(own))))
            all_weights.append(weights)
        context = torch.cat(contexts)
        if len(heads) > 1:
            context = self.decoder["attention.output.weight"] @ context
        return context, sum(all_weights) / len(heads)

    def attend_head(self, p, query, keys, values, t, memory):
        cfg, length = self.cfg, len(keys)
        if cfg.attention_history != "none":
            history = HISTORIES[cfg.attention_history]
            memory.setdefault("history", history.first(cfg, length))
            key_map = p["attention.history.key_map.weight"]
            p = {**p, "history": [key_map @ history.feature(p, cfg, memory["history"], j) for j in range(length)]}
        scores = torch.stack([SCORES[cfg.attention_score](p, query, keys, j) for j in range(length)])
        if cfg.attention_window != "none":
            centre = WINDOWS[cfg.attention_window](p, query, t, length)
            for j in range(length):
                near = abs(j - centre) <= cfg.attention_window_width
                scores[j] = scores[j] - (j - centre) ** 2 / (2 * (cfg.attention_window_width / 2) ** 2)
                scores[j] = scores[j] if near else float("-inf")
        if cfg.attention_addressing != "none":
            address = ADDRESSINGS[cfg.attention_addressing]
            before = memory.setdefault("weights", address.first(cfg, length))
            given = scores if address.takes_scores else NORMALIZERS[cfg.attention_normalizer](scores)
            weights = memory["weights"] = address.step(p, cfg, given, query, before)
        else:
            weights = NORMALIZERS[cfg.attention_normalizer](scores)
        if cfg.attention_history != "none":
            memory["history"] = history.after(p, cfg, memory["history"], weights, values, query)
        return weights

    def attend_past(self, query, states):
        """Over the states of earlier steps; zero where there are none."""
        if not states:
            return torch.zeros(self.cfg.decoder_hidden_size, dtype=torch.float64)
        p = {n[len("past.") :].replace("keys.", "attention_keys."): v for n, v in self.decoder.items() if "past." in n}
        score = SCORES[self.cfg.attention_past_score or "general"]
        normalize = NORMALIZERS[self.cfg.attention_past_normalizer or "softmax"]
        weights = normalize(torch.stack([score(p, query, states, j) for j in range(len(states))]))
        return sum(weight * state for weight, state in zip(weights, states, strict=True))

    @staticmethod
    def chosen(names, state, word, context, language=None):
        named = (("state", state), ("word", word), ("context", context), ("language", language))
        return torch.cat([value for name, value in named if name in names.split(",")])

    def mapped(self, part, joined):
        """activation(W x + b) of a part of the decoder that has W; else x."""
        if f"{part}.projection.weight" not in self.decoder:
            return joined
        joined = self.decoder[f"{part}.projection.weight"] @ joined
        joined = joined + self.decoder.get(f"{part}.projection.bias", 0.0)
        return ACTIVATIONS[self.cfg[f"{part}_activation"]](joined)

    def copying(self, scores, gate_inputs, source, weights):
        """See et al. (2017), eq. 8 and 9, over what can be copied → log p of every target symbol."""
        weight, bias = (self.decoder[f"copy_gate.inputs.projection.{name}"] for name in ("weight", "bias"))
        gate = 1 / (1 + torch.exp(-(weight[0] @ gate_inputs + bias[0])))
        shares, total = gate * NORMALIZERS["softmax"](scores), gate
        for j, token in enumerate(source):
            symbol = self.source_symbols[token]
            if symbol in self.target_symbols and symbol not in ("<s>", "<pad>", "</s>"):
                shares[self.target_symbols.index(symbol)] += (1 - gate) * weights[j]
                total = total + (1 - gate) * weights[j]
        return torch.log(shares / total)

    def feed_size(self, before):
        """R: the rest of the first layer's input, or of its map's."""
        weight = self.decoder.get("cell_input.projection.weight", self.layer(self.decoder, 0)["weight_ih_l0"])
        return weight.size(1) - before

    def __call__(self, source, previous):
        """Tokens of one sentence, no padding → T×V logits, T×S weights (None without attention)."""
        found, final = self.encode(source)
        values, past, memories = found[1], [], {}
        states = self.bridge(final, values)
        attention = self.cfg.attention_score != "none"
        feed, logits, all_weights = None, [], []
        with_past = self.cfg.attention_past == "on"
        context = torch.zeros(len(values[0]) + with_past * self.cfg.decoder_hidden_size, dtype=torch.float64)
        query_inputs = self.cfg.attention_query_inputs or "state"
        language = self.encoder["embed_tokens.weight"][source[0]] * (len(source) > 1)  # the tag comes first

        def attend(state, t):
            query = self.chosen(query_inputs, state, word, context, language)
            found_there, weights = self.attend(query, found, t, memories)
            return torch.cat([found_there, self.attend_past(query, past)]) if with_past else found_there, weights

        for t, token in enumerate(previous):
            word = self.decoder["embed_tokens.weight"][token]
            inputs, weights = [word], None
            if attention and self.cfg.attention_query == "previous":
                context, weights = attend(states[-1][0], t)
                inputs.append(context)
            if self.cfg.input_feeding == "on":
                size = self.feed_size(sum(map(len, inputs)))
                inputs.append(torch.zeros(size, dtype=torch.float64) if feed is None else feed)
            below = self.mapped("cell_input", torch.cat(inputs))
            for depth in range(self.cfg.decoder_layers):
                states[depth] = self.cell(self.layer(self.decoder, depth), below, states[depth])
                below = self.leave(self.decoder, depth, states[depth][0], below)
            if attention and self.cfg.attention_query == "current":
                context, weights = attend(below, t)
            past.append(below)
            feed = features = self.mapped("readout", self.chosen(self.cfg.readout_inputs, below, word, context))
            if "projection.weight" in self.decoder:
                features = self.decoder["projection.weight"] @ features + self.decoder["projection.bias"]
            scores = self.decoder["vocabulary.weight"] @ features + self.decoder.get("vocabulary.bias", 0.0)
            all_weights.append(self.over_tokens(weights, len(source)) if attention else None)
            if self.cfg["copy"] == "on":
                scores = self.copying(scores, torch.cat([below, word, context]), source, all_weights[-1])
            logits.append(scores)
        return torch.stack(logits), torch.stack(all_weights) if attention else None
