"""A subclass that changes what any public method of a part gives is computed by that method, however it is driven."""

import inspect

import pytest
import torch
from covering import taking_turns
from fairseq.sequence_generator import SequenceGenerator
from model_factory import batch, build, mechanism, toy_task

from fairseq_attn_plugin.models.bridge import BRIDGES
from fairseq_attn_plugin.models.config import option_of
from fairseq_attn_plugin.models.encoder_fronts import ENCODER_FRONTS
from fairseq_attn_plugin.modules.attention.addressings import ADDRESSINGS, AttentionAddressing
from fairseq_attn_plugin.modules.attention.histories import HISTORIES, AttentionHistory
from fairseq_attn_plugin.modules.attention.normalizers import NORMALIZERS
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES
from fairseq_attn_plugin.modules.attention.windows import WINDOWS
from fairseq_attn_plugin.modules.carry import tree_map
from fairseq_attn_plugin.modules.recurrence.cells import CELLS
from fairseq_attn_plugin.modules.recurrence.shared_products import plain_products

REGISTRIES = {
    "score": ATTENTION_SCORES, "normaliser": NORMALIZERS, "history": HISTORIES, "window": WINDOWS,
    "addressing": ADDRESSINGS, "cell": CELLS, "bridge": BRIDGES, "front": ENCODER_FRONTS,
}  # fmt: skip
NO_NUMBERS = {"set_forget_gate_bias", "adds_up"}
"""Methods that set parameters and give nothing, or say what holds."""


CALLS = []
"""Calls of overridden methods."""


def public_methods(cls):
    """Names of the methods that this project gives a class, without those that may not be overridden."""
    names = {
        name
        for parent in cls.__mro__
        if parent.__module__.startswith("fairseq_attn_plugin")
        for name, value in vars(parent).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    return sorted(names - NO_NUMBERS - set(getattr(cls, "final", ())))


def changed(tensor):
    """Quite other numbers, of which each may still be one of its kind."""
    if not tensor.is_floating_point():
        return tensor // 2
    return 0.125 - tensor if tensor.isfinite().all() else tensor / 2


def spread(tensor):
    """Other numbers, none of them below zero where none was, and not all changed alike."""
    return tensor / 2 + torch.linspace(0, 0.25, tensor.size(-1), dtype=tensor.dtype)


def subclass(parent, method):
    """``parent`` with one method whose results are changed."""
    change = spread if issubclass(parent, (AttentionHistory, AttentionAddressing)) else changed

    def override(self, *arguments, **named):
        CALLS.append(method)
        return tree_map(change, getattr(super(child, self), method)(*arguments, **named))

    child = type(f"Changed{parent.__name__}", (parent,), {method: override})
    return child


CASES = {
    f"{kind} {name}: {method}": (registry, name, subclass(registry[name], method))
    for kind, registry in REGISTRIES.items()
    for name in registry.names()
    for method in public_methods(registry[name])
}
CASES.update({
    f"score {name} with a history: forward": (ATTENTION_SCORES, name, subclass(ATTENTION_SCORES[name], "forward"))
    for name in ATTENTION_SCORES.names()
    if ATTENTION_SCORES[name].reads_keys
})  # fmt: skip
for score in ATTENTION_SCORES.names():
    keys = {"keys_class": subclass(ATTENTION_SCORES[score].keys_class, "forward")}
    child = type(f"OtherKeys{score}", (ATTENTION_SCORES[score],), keys)
    CASES[f"score {score}: keys"] = ATTENTION_SCORES, score, child

WITHOUT_EFFECT = {"score last: forward", "score last: keys"}
"""One weight is 1, whatever the scores."""


def options_of(case, registry, name):
    """A model that has the part."""
    options = mechanism(name if registry is ATTENTION_SCORES else "general", encoder_direction="bi")
    if registry is not ATTENTION_SCORES:
        options[option_of(registry)] = name
    if "with a history" in case:
        options["attention_history"] = "location"
    if options.get("attention_addressing") == "monotonic":
        options["attention_monotonic_noise"] = 0.0  # of training alone
    if options.get("bridge") == "copy":
        options["encoder_hidden_size"] = 4  # both directions: 8, as the decoder has
    return options


def greedy(model, source, previous):
    """Logits of every step of a search that is given the words of ``previous``."""
    cache, logits = {}, []
    with torch.no_grad():
        encoder_out = model.encoder(source)
        for t in range(previous.size(1)):
            step = model.decoder(previous[:, : t + 1], encoder_out=encoder_out, incremental_state=cache)
            logits.append(step[0][:, -1])
    return torch.stack(logits, dim=1)


def assert_beams_have_the_scores_of_teacher_forcing(model, task, source, lengths, tolerance):
    generator = SequenceGenerator([model], task.target_dictionary, beam_size=3, max_len_a=0, max_len_b=5)
    sample = {"net_input": {"src_tokens": source, "src_lengths": lengths}}
    for row, found in enumerate(generator.generate([model], sample)):
        assert len(found) == 3
        for hypothesis in found:
            tokens = hypothesis["tokens"]
            previous = torch.cat([torch.tensor([task.target_dictionary.eos()]), tokens[:-1]]).unsqueeze(0)
            logits = model(source[row : row + 1], None, previous)[0][0]
            expected = logits.log_softmax(dim=1).gather(1, tokens.unsqueeze(1)).squeeze(1).float()
            torch.testing.assert_close(hypothesis["positional_scores"], expected, atol=tolerance, rtol=tolerance)


TOLERANCE_AND_SIZE = {"float32": (1e-4, 1.0), "bfloat16": (0.04, 0.5)}


@pytest.mark.slow
@pytest.mark.parametrize("case, feeding, dtype", taking_turns(list(CASES), ("on", "off"), list(TOLERANCE_AND_SIZE)))
def test_a_subclass_computes_the_same_everywhere(case, feeding, dtype, monkeypatch):
    """Plain products are the reference; teacher forcing, scheduled sampling and both searches give the same."""
    tolerance, size = TOLERANCE_AND_SIZE[dtype]
    registry, name, child = CASES[case]
    task = toy_task()
    source, lengths, previous = batch(task, left_pad=True)
    options = dict(options_of(case, registry, name), input_feeding=feeding, matmul_dtype=dtype)

    def sized(**more):
        model = build(task, **options, **more)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(size)
        return model

    with torch.no_grad():
        parents = sized()(source, lengths, previous)[0]
        monkeypatch.setitem(registry._classes, name, child)
        model = sized()
        with plain_products():
            expected = model(source, lengths, previous)[0]
        if case not in WITHOUT_EFFECT and dtype == "float32":  # in bfloat16 some effects are as small as the rounding
            assert (expected - parents).abs().max() > 3 * tolerance
    sampled = sized(scheduled_sampling="constant", scheduled_sampling_k=0.0)
    sampled.decoder.scheduled_sampling.schedule.k = 1.0
    ways = {
        "teacher forcing": lambda: model(source, lengths, previous)[0],
        "scheduled sampling": lambda: sampled.train()(source, lengths, previous)[0],
        "greedy search": lambda: greedy(model, source, previous),
    }
    for way, run in ways.items():
        CALLS.clear()
        logits = run()
        assert CALLS, way
        torch.testing.assert_close(
            logits, expected, atol=tolerance, rtol=tolerance, msg=lambda text, way=way: f"{way}: {text}"
        )
    CALLS.clear()
    with torch.no_grad():
        assert_beams_have_the_scores_of_teacher_forcing(model, task, source, lengths, tolerance)
    assert CALLS
