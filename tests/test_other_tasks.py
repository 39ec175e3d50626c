"""fairseq's own tasks for several pairs of languages."""

import pytest
from fairseq_commands import SMALL, hypotheses, preprocess, write_reversed_text

pytestmark = pytest.mark.slow


def test_one_model_for_several_pairs_trains_and_decodes(tmp_path, command):
    write_reversed_text(tmp_path, {"train": 40, "valid": 8, "test": 8}, 5)
    data = preprocess(command, tmp_path, "--joined-dictionary")
    task = "--task translation_multi_simple_epoch --langs src,tgt --lang-pairs src-tgt --encoder-langtok tgt"
    save = tmp_path / "save"
    command("train", data, task, "--arch attn_lstm", SMALL, f"--max-update 4 --save-dir {save}")
    decode = f"--path {save / 'checkpoint_last.pt'} --source-lang src --target-lang tgt --max-len-b 10"
    assert len(hypotheses(command("generate", data, task, decode, "--required-batch-size-multiple 1"))) == 8
