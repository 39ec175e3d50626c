"""Checkpoints of a release with what they gave then: ``tests/test_releases.py`` holds every later version to it.

usage, once a release: python tests/release_fixtures.py tests/fixtures/VERSION

Together the folders hold checkpoints exactly as ``fairseq-train`` wrote them, and many more models, one for every
preset and every registered part, packed in ``models.pt``: a file with a tensor for each parameter would be several
times as large. A part that is new in a release gets a line in ``MECHANISMS``. The folder of a release has what those
before it do not have: models, and trainings, that are new or have other options or parameters than there.
"""

import copy
import subprocess
import sys
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List

import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.data.data_utils import collate_tokens
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

import fairseq_attn_plugin

PLUGIN = Path(fairseq_attn_plugin.__file__).parent
TASK = "--task reversal --reversal-symbols abcde --reversal-max-length 6"
SEARCH = Namespace(beam=3, max_len_a=0, max_len_b=6)
"""The same for the fixtures of every release, so it stays as it is."""

UNI = "--encoder-embed-dim 3 --encoder-hidden-size 6 --decoder-embed-dim 5 --decoder-hidden-size 6"
"""One direction and states of one size, as ``--bridge copy`` needs them."""

BI = f"{UNI} --encoder-direction bi --encoder-hidden-size 4"
"""Every size is another: the value has 8 numbers."""

DEEP = "--encoder-layers 2 --decoder-layers 2"
PREVIOUS = "--attention-query previous --input-feeding off"

PRESETS = {
    "attn_lstm": UNI,
    "attn_lstm_luong": f"{UNI} {DEEP}",
    "attn_gru_bahdanau": f"{BI} --readout-dim 7",
    "attn_gru_d2l": UNI,
    "attn_gru_location": f"{UNI} --attention-location-positions 8",
    "attn_gru_linear_readout": BI,
    "attn_gru_additive": BI,
    "attn_gru_chorowski": f"{BI} --encoder-layers 1 --readout-dim 3 --attention-dim 4 --attention-history-size 2",
    "attn_gru_coverage": f"{BI} --readout-dim 3 --attention-dim 4 --attention-history-size 2",
    "attn_lstm_local_p": f"{UNI} {DEEP} --attention-window-width 2",
    "attn_lstm_monotonic": f"{UNI} --attention-dim 4 --attention-monotonic-search soft",
    "attn_lstm_ntm_addressing": f"{UNI} --attention-dim 4",
    "attn_lstm_pyramid": f"{BI} {DEEP} --encoder-pyramid 1",
    "seq2seq_lstm": UNI,
    "attn_lstm_multi30k": f"{UNI} --encoder-hidden-size 3 --decoder-out-embed-dim 4",
    "attn_lstm_reversal": f"{UNI} --encoder-hidden-size 3",
    "attn_lstm_shift": f"{BI} --attention-dim 7",
}
"""Every ``--arch``, scaled down."""

MECHANISMS = {
    "dot": f"{BI} --cell rnn --bridge zero --attention-score dot --attention-dim 7 --attention-normalizer sparsemax",
    "scaled_dot": f"{BI} --cell gru --bridge mean --attention-score scaled_dot --attention-dim 7 "
    "--attention-normalizer entmax15 --attention-value-inputs state,word",
    "cosine": f"{BI} --cell gru_reset_before --bridge linear --attention-score cosine --attention-dim 7 "
    "--attention-query-inputs state,word,context --readout-activation maxout",
    "general": f"{BI} {DEEP} --bridge tanh --attention-bias on --attention-dim 7 --residual-connections --layer-norm",
    "general, previous": f"{BI} --bridge backward --attention-query previous --attention-normalizer sparsemax",
    "concat": f"{BI} {PREVIOUS} --cell rnn --bridge mean --attention-score concat --attention-bias on "
    "--cell-input-activation tanh --cell-input-dim 7",
    "additive": f"{BI} --bridge linear --attention-score additive --attention-bias off --attention-query previous "
    "--readout-activation none --readout-dim 7 --cell-input-dim 8",
    "normed_additive": f"{BI} {DEEP} --cell gru --bridge tanh --attention-score normed_additive "
    "--attention-query previous --attention-query-inputs state,context --attention-normalizer entmax15 "
    "--residual-connections",
    "location": f"{BI} --cell rnn --bridge linear --attention-score location --attention-location-positions 8 "
    "--input-feeding off",
    "last": f"{BI} --bridge linear --attention-score last --layer-norm --cell-input-activation relu",
    "none": f"{BI} --cell gru --bridge mean --attention-score none --input-feeding off --readout-inputs state,word "
    "--readout-activation maxout",
    "tied": f"{BI} --bridge linear --readout-dim 5 --share-decoder-input-output-embed --forget-gate-bias 1",
    "one table": f"{BI} --encoder-embed-dim 5 --bridge linear --decoder-out-embed-dim 5 --share-all-embeddings "
    f"{PREVIOUS} --cell gru_reset_before --readout-inputs word,context --attention-dim 7",
    "dense front": f"{BI} --bridge shared --encoder-front dense --encoder-output-dim 5 --readout-bias on",
    "pyramid": f"{BI} {DEEP} --bridge shared --encoder-front conv --encoder-front-activation relu --encoder-pyramid 1 "
    "--attention-value-inputs state,word --attention-score additive",
    "coverage": f"{BI} --bridge linear --attention-history coverage --attention-heads 2 --attention-dim 6 "
    "--attention-addressing monotonic",
    "fertility": f"{BI} --bridge tanh --attention-score additive --attention-hidden-layers 2 --attention-value-dim 5 "
    "--attention-history fertility --attention-fertility 3 --attention-window local_m --attention-window-width 2 "
    "--attention-query previous",
    "own past": f"{BI} --cell gru --bridge linear --attention-past on --attention-past-score additive "
    "--attention-past-dim 4 --attention-past-normalizer sparsemax --attention-history location "
    "--attention-history-over both --attention-key-value split",
    "shift": f"{BI} --bridge linear --attention-addressing shift --attention-shift-width 5 "
    "--attention-addressing-start last --attention-normalizer entmax15 --attention-heads 2 --input-feeding off",
    "scheduled sampling": f"{BI} --bridge tanh --input-feeding off --scheduled-sampling inverse_sigmoid "
    "--scheduled-sampling-k 9 --parameter-init torch --attention-dropout 0.1",
}
"""Combinations off the presets, with every score, cell, front, bridge, normaliser and activation, history, window and
addressing, and what else has weights or enters a step."""

TRAINING = (
    f"{TASK} --reversal-train-size 24 --reversal-valid-size 8 --dropout 0 --optimizer adam --lr 0.1 --batch-size 8 "
    "--no-epoch-checkpoints --disable-validation"
)
TRAINED = {
    "attn_lstm": f"{TRAINING} --max-update 6 --arch attn_lstm {BI} --bridge linear",
    "attn_gru_additive": f"{TRAINING} --max-update 6 --arch attn_gru_additive {BI} --no-save-optimizer-state",
}
"""Trained by ``fairseq-train``; the first keeps the state of its optimiser, so that the training can go on."""

MORE_UPDATES = 8
"""Where the training that goes on from the first of them ends."""


def main(folder: Path) -> None:
    """Writes the fixtures of the version that is installed into ``folder``, those of earlier ones beside it."""
    earlier = [read(path) for path in sorted(folder.parent.glob("*/models.pt"))]
    folder.mkdir(parents=True)
    batches = [batch((6, 1, 5, 3), (4, 5, 2, 3), left_pad=False), batch((2, 7, 1), (5, 1, 4), left_pad=True)]
    given = {arch: f"--arch {arch} {sizes}" for arch, sizes in PRESETS.items()}
    given.update({name: f"--arch attn_lstm {mechanism}" for name, mechanism in MECHANISMS.items()})
    held = [content["models"] for content in earlier]
    models = {
        name: packed_model(words, batches)
        for name, words in given.items()
        if not any(name in models and is_held(words, models[name]) for models in held)
    }
    new = {name: words for name, words in TRAINED.items() if not any(name in content["trained"] for content in earlier)}
    trained = {name: packed_outputs(*load(train(folder, name, words)), batches) for name, words in new.items()}
    resumed = resume(folder, "attn_lstm") if "attn_lstm" in new else None
    task = container(config(f"{TASK} --arch attn_lstm").task)
    write(dict(task=task, batches=batches, models=models, trained=trained, resumed=resumed), folder / "models.pt")
    print(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir())} bytes")


def write(content: Dict[str, Any], path: Path) -> None:
    """As torch.save does, but compressed."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def read(path: Path) -> Dict[str, Any]:
    """What ``models.pt`` of a release holds."""
    return torch.load(path, weights_only=True)


def is_held(words: str, model: Dict[str, Any]) -> bool:
    """Whether a model of these options is the same as a packed one: options that are new since have their defaults, and
    names and shapes of the parameters are the same."""
    cfg, default = (container(config(f"{TASK} {text}").model) for text in (words, "--arch attn_rnn"))
    task = tasks.setup_task(config(f"{TASK} {words}").task)
    state = task.build_model(config(f"{TASK} {words}").model).state_dict()
    shapes = {name: list(value.shape) for name, value in state.items()}
    return {**default, **model["options"]} == cfg and shapes == model["parameters"]["shapes"]


def container(cfg) -> Dict[str, Any]:
    """A config in plain types."""
    return OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)


def packed_model(words: str, batches: List[dict]) -> Dict[str, Any]:
    """A model of these options as its checkpoint has it, packed, with what it gives.

    Its random weights are so large that the attention is far from uniform and every parameter has an effect. The seed
    is the first for which it does not show that another machine may add up in another order.
    """
    cfg = config(f"{TASK} {words}")
    task = tasks.setup_task(cfg.task)
    for seed in range(100):
        torch.manual_seed(seed)
        model = task.build_model(cfg.model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.9)
                parameter.mul_(64).round_().div_(64)  # a third of the size, compressed
        if is_steady(task, model, batches):
            break
    else:
        raise ValueError(f"{words}: no seed gives the same to 1e-5 after a change of the last bits of the weights")
    parameters, given = pack(model.state_dict()), packed_outputs(task, model, batches)
    return dict(options=container(cfg.model), parameters=parameters, outputs=given)


@torch.no_grad()
def is_steady(task, model, batches: List[dict]) -> bool:
    """Whether changes of the weights in their last bits leave what the model gives far within the test's tolerance."""
    given, other = outputs(task, model, batches), copy.deepcopy(model)
    for _ in range(4):
        for parameter, original in zip(other.parameters(), model.parameters(), strict=True):
            parameter.copy_(original * (1 + 3e-7 * torch.randn_like(original)))
        found = outputs(task, other, batches)
        pairs = zip(found["numbers"].values(), given["numbers"].values(), strict=True)
        close = (torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5) for ours, theirs in pairs)
        if found["tokens"] != given["tokens"] or not all(close):
            return False
    return True


def packed_outputs(task, model, batches: List[dict]) -> Dict[str, Any]:
    """``outputs``, packed."""
    given = outputs(task, model, batches)
    return dict(numbers=pack(given["numbers"]), tokens=given["tokens"])


def config(words: str):
    """What ``fairseq-train`` makes of its command line."""
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), words.split()))


def pack(tensors: Dict[str, torch.Tensor]) -> Dict[str, Any]:
    """The shapes of float32 tensors by name, and all their numbers one after another."""
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    shapes = {sys.intern(name): list(tensor.shape) for name, tensor in tensors.items()}  # once in a file
    return dict(shapes=shapes, values=torch.cat([tensor.flatten() for tensor in tensors.values()]))


def unpack(packed: Dict[str, Any]) -> Dict[str, torch.Tensor]:
    """Inverse of ``pack``."""
    shapes = packed["shapes"]
    parts = packed["values"].split([torch.Size(shape).numel() for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def write_checkpoint(task: Dict[str, Any], model: Dict[str, Any], path: Path) -> Path:
    """A packed model, and the options of its task, as a checkpoint that fairseq loads."""
    state = {
        "args": None,
        "cfg": {"model": model["options"], "task": task},
        "model": unpack(model["parameters"]),
        "optimizer_history": [{"optimizer_name": "FairseqAdam", "lr_scheduler_state": {}, "num_updates": 1}],
        "task_state": tasks.setup_task(OmegaConf.create(task)).state_dict(),
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 1}},
    }
    torch.save(state, path)
    return path


def train(folder: Path, name: str, words: str) -> Path:
    """Runs ``fairseq-train`` in ``folder``; returns the path of its checkpoint, ``<name>.pt``.

    The paths in the command are relative, so that none of this machine is in the checkpoint.
    """
    command = f"{words} --cpu --num-workers 0 --save-dir save --user-dir {PLUGIN.name}"
    (folder / PLUGIN.name).symlink_to(PLUGIN)
    try:
        subprocess.run([sys.executable, "-m", "fairseq_cli.train", *command.split()], cwd=folder, check=True)
    finally:
        (folder / PLUGIN.name).unlink()
    path = (folder / "save" / "checkpoint_last.pt").rename(folder / f"{name}.pt")
    (folder / "save").rmdir()
    return path


def resume(folder: Path, name: str) -> Dict[str, Any]:
    """The training of a checkpoint goes on: the options, and the parameters that it comes to."""
    words = f"{TRAINED[name]} --max-update {MORE_UPDATES}"
    path = train(folder, "resumed", f"{words} --restore-file {folder.resolve() / name}.pt")
    parameters = pack(torch.load(path, weights_only=True)["model"])
    path.unlink()
    return dict(checkpoint=name, options=words, parameters=parameters)


def load(path: Path) -> tuple:
    """The task and the model of a checkpoint, as fairseq's commands load them."""
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    return task, model


def batch(source_lengths, target_lengths, left_pad: bool) -> Dict[str, torch.Tensor]:
    """B sentences of these lengths, ``</s>`` included, as fairseq's datasets collate them; sources padded on one
    side."""
    vocabulary = tasks.setup_task(config(f"{TASK} --arch attn_lstm").task).source_dictionary
    generator = torch.Generator().manual_seed(sum(source_lengths))

    def sentences(lengths):
        words = [torch.randint(vocabulary.nspecial, len(vocabulary), (n - 1,), generator=generator) for n in lengths]
        return [torch.cat([sentence, torch.tensor([vocabulary.eos()])]) for sentence in words]

    source = collate_tokens(sentences(source_lengths), vocabulary.pad(), left_pad=left_pad)
    shifted = dict(eos_idx=vocabulary.eos(), move_eos_to_beginning=True)
    previous = collate_tokens(sentences(target_lengths), vocabulary.pad(), **shifted)
    return dict(src_tokens=source, src_lengths=torch.tensor(source_lengths), prev_output_tokens=previous)


@torch.no_grad()
def outputs(task, model, batches: List[dict]) -> Dict[str, Any]:
    """What the model gives in evaluation, as ``numbers`` by name and ``tokens``.

    For each batch B×T×V logits and B×T×S attention (not without attention) at the words of the target, zeros after
    them, and per sentence its hypotheses, best first, with the scores of their tokens.
    """
    model.eval()
    generator, numbers, tokens = task.build_generator([model], SEARCH), {}, []
    for i, net_input in enumerate(batches):
        padding = net_input["prev_output_tokens"].eq(task.target_dictionary.pad()).unsqueeze(2)
        logits, extra = model(**net_input)
        numbers[f"logits {i}"] = logits.masked_fill(padding, 0.0)
        if extra["attn"]:
            numbers[f"attention {i}"] = extra["attn"][0].masked_fill(padding, 0.0)
        found = task.inference_step(generator, [model], {"net_input": net_input})
        tokens.append([[hypothesis["tokens"].tolist() for hypothesis in beam] for beam in found])
        scores = [hypothesis["positional_scores"] for beam in found for hypothesis in beam]
        numbers[f"scores {i}"] = torch.cat(scores)
    return dict(numbers=numbers, tokens=tokens)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
