"""Checkpoints of fairseq's ``lstm``, untrained, in shapes that differ in every size."""

from argparse import Namespace

import torch
from fairseq.models import ARCH_CONFIG_REGISTRY
from fairseq.models.lstm import LSTMModel
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from model_factory import dictionary


def translation_task(options):
    """V differs on both sides unless the embeddings are one table."""
    source = dictionary(9)
    target = source if options.get("share_all_embeddings") else dictionary(13)
    return TranslationTask(TranslationConfig(max_source_positions=30), source, target)


def lstm_checkpoint(path, **options):
    """Writes a checkpoint of ``lstm`` with large weights, so that attention is far from uniform."""
    sizes = dict(
        encoder_embed_dim=5, encoder_hidden_size=6, decoder_embed_dim=7, decoder_hidden_size=8, decoder_out_embed_dim=8
    )
    args = Namespace(**{"arch": "lstm", "criterion": "cross_entropy", **sizes, **options})
    args._name = args.arch
    ARCH_CONFIG_REGISTRY[args.arch](args)
    torch.manual_seed(11)
    model = LSTMModel.build_model(args, translation_task(options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0)
    state = {
        "args": None,
        "cfg": {"model": args, "task": {"_name": "translation"}},
        "model": model.state_dict(),
        "optimizer_history": [{"optimizer_name": "FairseqAdam", "lr_scheduler_state": {}, "num_updates": 3}],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 3}},
    }
    torch.save(state, path)
    return state
