"""scripts/nmt.sh and nmt_compare.sh: what they run, skip, resume and refuse, with stand-ins for the tools; and one real
run that is killed and started again."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from parallel_corpus import write_parallel_corpus

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]

PREPARE = r"""#!/usr/bin/env bash
echo "${0##*/} $*" >>"$CALLS"
[ "${BREAK:-}" != prepare ] || { echo "error: --source: got 'x'" >&2; exit 2; }
mkdir -p "$DATA/text"
[ -e "$DATA/data.json" ] || echo '{"source": "de", "target": "en", "sha256": {"dict.de.txt": "", "dict.en.txt": "",
  "sentencepiece.model": ""}}' >"$DATA/data.json"
echo | tee "$DATA/dict.en.txt" >"$DATA/dict.de.txt"
touch "$DATA/sentencepiece.model" "$DATA/train.de-en.de.bin"
touch "$DATA/text/valid.de" "$DATA/text/test.de" "$DATA/text/test.en" "$DATA/text/test1.de"
echo "$DATA"
"""
TRAIN = r"""#!/usr/bin/env bash
set -e
echo "train $*" >>"$CALLS"
case ${BREAK:-} in
  error) printf 'Traceback (most recent):\n  File "x.py", line 1\nValueError: --lr: got x\nnoise\n' >&2; exit 1 ;;
  "one thread") [ "$OMP_NUM_THREADS" = 1 ] ;;
  hang) echo $$ >"$CALLS.pid"; exec sleep 60 ;;
  together) # every training waits until there are two, of one thread each
    [ "$OMP_NUM_THREADS" = 1 ]
    until [ "$(grep -c ^train "$CALLS")" -ge 2 ]; do sleep 0.05; done ;;
esac
while [ $# -gt 0 ]; do case $1 in --save-dir) out=$2 ;; esac; shift; done
mkdir -p "$out"
touch "$out"/checkpoint{8,9,10,11,_best,_last,_2_500}.pt
[ "${BREAK:-}" != within ] || { sleep 0.1; echo further >"$out/checkpoint_last.pt"; }
[ "${BREAK:-}" != data ] || echo '{"other": 1}' >"$DATA/data.json"
"""
GENERATE = r"""#!/usr/bin/env bash
echo "generate $*" >>"$CALLS"
while [ $# -gt 0 ]; do case $1 in --results-path) out=$2 ;; --gen-subset) split=$2 ;; esac; shift; done
: >"$out/generate-$split.txt"
"""
PYTHON = f"""#!/usr/bin/env bash
case "$*" in
  *average_checkpoints.py*) echo "average ${{*:4}}" >>"$CALLS"; : >"$4" ;;
  *attention_options.py*) [ -n "${{NO_ATTENTION:-}}" ] || echo --print-alignment soft ;;
  *train_distributed.py*) echo "processes ${{*:4:2}}" >>"$CALLS"; exec "${{0%/*}}/fairseq-train" "${{@:7}}" ;;
  *nmt_report.py*) echo "report ${{*:4}}" >>"$CALLS"; [ "$4" != run ] || echo '{{}}' >"$5/report.json" ;;
  *compare.py*) exec "$PROGRAMS/bin/python" "$@" ;;
  *) exec '{sys.executable}' "$@" ;;
esac
"""


class Checkout:
    """A copy of the scripts under a path with a space, with stand-ins for everything that they run."""

    def __init__(self, folder: Path):
        self.root, self.out, self.data = folder / "a b", folder / "out put", folder / "data bin" / "set.de-en"
        self.calls_file = folder / "calls"
        for name in ("scripts", "experiments"):
            shutil.copytree(ROOT / name, self.root / name)
        (self.root / "fairseq_attn_plugin").symlink_to(ROOT / "fairseq_attn_plugin")
        self.write("scripts/setup.sh", "#!/usr/bin/env bash\n")
        for name in ("prepare_corpus", "prepare_multi30k"):
            self.write(f"data-prep/{name}.sh", PREPARE)
        for name, text in (("fairseq-train", TRAIN), ("fairseq-generate", GENERATE), ("python", PYTHON)):
            self.write(f"venv/bin/{name}", text)

    def write(self, name: str, text: str):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *args, script="nmt", **env):
        names = dict(OUT=self.out, VENV=self.root / "venv", CALLS=self.calls_file, DATA=self.data)
        return subprocess.Popen(
            ["bash", str(self.root / "scripts" / f"{script}.sh"), *args], cwd="/", text=True,
            env={**os.environ, **{name: str(value) for name, value in names.items()}, **env},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *args, script="nmt", **env):
        process = self.start(*args, script=script, **env)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def calls(self, verb=""):
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return [line for line in lines if line.startswith(verb)]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


PAIRS = ("de-en", "en-de")
PAIR = ("--source", "de", "--target", "en")


def last_line(result):
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_every_step_once(checkout):
    given = (*PAIR, "--from", "x y", "--", "--lr", "0.1")
    result = checkout.run(*given, AVERAGE="3")
    assert result.returncode == 0, result.stderr
    prepare, train, average, test, test1, report = checkout.calls()
    assert prepare == "prepare_corpus.sh --source de --target en --from x y"
    assert train.startswith(f"train {checkout.data} ") and train.rindex("--lr 0.1") > train.rindex("--lr 0.002")
    assert "--task attn_translation" in train and "--keep-last-epochs 3" in train
    assert [Path(word).name for word in average.split(".pt")] == ["checkpoint", "checkpoint9", "checkpoint10",
                                                                  "checkpoint11", ""]  # fmt: skip
    assert "--gen-subset test " in test and "--gen-subset test1 " in test1 and "--print-alignment soft" in test
    assert f"--path {checkout.out}/model/checkpoint.pt" in test and report.endswith(" test test1")
    model = sorted(path.name for path in (checkout.out / "model").iterdir())
    assert model == ["checkpoint.pt", "data.json", "dict.de.txt", "dict.en.txt", "sentencepiece.model", "train.options"]

    assert checkout.run(*given, AVERAGE="3").returncode == 0
    assert [call.split()[0] for call in checkout.calls()[6:]] == ["prepare_corpus.sh", "report"]
    assert checkout.run(*given, AVERAGE="3", BEAM="7", SPLITS="test1").returncode == 0
    again = checkout.calls()[8:]
    assert [call.split()[0] for call in again] == ["prepare_corpus.sh", "generate", "report"]
    assert "--beam 7" in again[1] and again[2].endswith(" test1"), "another beam is another decoding, no training"


@pytest.mark.parametrize(
    "options, script",
    [
        ((), "prepare_multi30k.sh"),
        (("--from", "x", "--set", "multi30k"), "prepare_multi30k.sh"),
        (("--from", "x"), "prepare_corpus.sh"),
        (("--tsv=x",), "prepare_corpus.sh"),
    ],
)
def test_what_prepares_the_text(checkout, options, script):
    assert checkout.run(*PAIR, *options).returncode == 0
    assert checkout.calls()[0] == " ".join([script, *PAIR, *options])
    assert "/checkpoints/checkpoint_best.pt" in checkout.calls("average")[0], "unless epochs are averaged"
    assert "--no-epoch-checkpoints" in checkout.calls("train")[0]


def test_the_end_of_a_training_within_an_epoch_is_averaged_too(checkout):
    assert checkout.run(*PAIR, AVERAGE="2", BREAK="within").returncode == 0
    words = checkout.calls("average")[0].split(".pt")
    assert [Path(word).name for word in words] == ["checkpoint", "checkpoint11", "checkpoint_last", ""]


def test_a_score_of_ones_own_is_known_when_it_decodes(checkout):
    result = checkout.run(*PAIR, "--", "--user-dir", "mine", "--attention-score", "distance")
    commands = checkout.calls("train") + checkout.calls("generate")
    assert len(commands) == 3 and all(f" {checkout.data} --user-dir mine " in call for call in commands)
    hint = next(line for line in result.stderr.splitlines() if "translate with: " in line)
    words = ["bash", "scripts/translate.sh", "--user-dir", "mine", f"{checkout.out}/model"]
    assert shlex.split(hint.split("translate with: ")[1]) == words


def test_what_lies_in_another_folder_stays_as_it_is(checkout):
    """A folder that is not that of a run, such as the one of the data, or a home with a folder "model"."""
    (checkout.out / "model").mkdir(parents=True)
    (checkout.out / "model" / "mine").touch()
    result = checkout.run(*PAIR)
    assert result.returncode == 1
    assert last_line(result).endswith(f"{checkout.out} holds other files; set OUT= to a new folder")
    assert sorted(checkout.out.rglob("*")) == [checkout.out / "model", checkout.out / "model" / "mine"]


def test_help_is_found_among_the_words(checkout):
    result = checkout.run(*PAIR, "--help")
    assert result.returncode == 0 and result.stdout.startswith("From raw parallel text") and not checkout.calls()


def test_numbers_with_zeros_before_them_are_decimal(checkout):
    assert checkout.run(*PAIR, UPDATES="010", AVERAGE="02", BEAM="08").returncode == 0
    train, generate = checkout.calls("train")[0], checkout.calls("generate")[0]
    assert "--max-update 10 " in train and "--keep-last-epochs 2 " in train and "--beam 8 " in generate


@pytest.mark.parametrize("words", [("--arch", "lstm"), ("--task", "translation")], ids=" ".join)
def test_what_the_server_cannot_read_has_no_hint(checkout, words):
    result = checkout.run(*PAIR, "--", *words)
    assert result.returncode == 0 and "translate with: " not in result.stderr


def test_models_of_fairseq_get_options_that_they_have(checkout):
    result = checkout.run(*PAIR, "--", "--arch", "lstm")
    assert result.returncode == 0
    train = checkout.calls("train")[0]
    assert "attn_lstm" not in train and "--criterion label_smoothed_cross_entropy" in train
    assert checkout.run(*PAIR, "--", "--arch", "x", OUT=f"{checkout.out}2", NO_ATTENTION="1").returncode == 0
    assert "--print-alignment" not in checkout.calls("generate")[-1], "the finished model has none"


def test_processes_train_together_and_are_a_setting(checkout):
    result = checkout.run(*PAIR, NPROC="2", OMP_NUM_THREADS="", BREAK="one thread")
    assert result.returncode == 0, result.stderr
    together, train = checkout.calls()[1:3]
    assert together == "processes --nproc 2" and train.startswith(f"train {checkout.data} --user-dir ")
    result = checkout.run(*PAIR)
    assert "holds results of other settings" in last_line(result) and "< processes" in result.stderr


def test_other_settings_and_other_data_are_refused(checkout):
    assert checkout.run(*PAIR).returncode == 0
    number = len(checkout.calls())
    for change in (dict(AVERAGE="2"), {}):
        if not change:
            path = checkout.data / "data.json"
            path.write_text(path.read_text() + "\n")
        result = checkout.run(*PAIR, **change)
        assert result.returncode == 1 and "holds results of other settings" in last_line(result)
    assert [call.split()[0] for call in checkout.calls()[number:]] == ["prepare_multi30k.sh"] * 2


def test_a_start_that_left_no_checkpoint_blocks_nothing(checkout):
    assert checkout.run(*PAIR, "--", "--lr", "x", BREAK="error").returncode == 1
    assert checkout.run(*PAIR, "--", "--lr", "1").returncode == 0
    assert "--lr 1" in (checkout.out / "settings").read_text()
    assert "holds results of other settings" in last_line(checkout.run(*PAIR, "--", "--lr", "2"))


def test_data_made_anew_while_it_trains_make_no_model(checkout):
    result = checkout.run(*PAIR, BREAK="data")
    assert result.returncode == 1 and "was made anew with other options" in last_line(result)
    assert not (checkout.out / "model").exists() and not (checkout.out / "model.done").exists()
    (checkout.data / "data.json").unlink()
    assert checkout.run(*PAIR).returncode == 0
    assert "dict.de.txt" in (checkout.out / "model" / "data.json").read_text() and len(checkout.calls("train")) == 1


@pytest.mark.parametrize(
    "args, env, words",
    [
        (PAIR, dict(BREAK="prepare"), "error: --source: got 'x'"),
        (PAIR, dict(BREAK="error"), "ValueError: --lr: got x"),
        (PAIR, dict(AVERAGE="two"), "AVERAGE: got 'two'; give a number, 0 or more"),
        (PAIR, dict(UPDATES="9" * 20), f"UPDATES: got '{'9' * 20}'; give a number of at most 9 digits"),
        ((*PAIR, "--", "--save-dir", "x"), {}, "--save-dir: checkpoints and logs are in the folder of the run; leave"),
        ((*PAIR, "--", "--log-file=x"), {}, "--log-file: checkpoints and logs are in the folder of the run; leave"),
        (PAIR, dict(BEAM="0"), "BEAM: got '0'; give a number, 1 or more"),
        (PAIR, dict(NPROC="0"), "NPROC: got '0'; give a number, 1 or more"),
        (PAIR, dict(UPDATES="00"), "UPDATES: got '00'; give a number, 1 or more"),
        (PAIR, dict(SPLITS="test nope"), "SPLITS: got 'nope'; choose from valid test test1"),
        (PAIR, dict(SPLITS="../text/test"), "SPLITS: got '../text/test'; choose from valid test test1"),
        ((*PAIR, "--", "--no-epoch-checkpoints"), dict(AVERAGE="2"), "--no-epoch-checkpoints: AVERAGE=2 wants"),
        ((*PAIR, "--set", "europarl"), {}, "--set europarl: give its text with --from"),
        (PAIR, dict(OUT="/proc/x"), "/proc/x: cannot be made (No such file or directory); set OUT="),
    ],
)
def test_mistakes_are_one_line(checkout, args, env, words):
    result = checkout.run(*args, **env)
    assert result.returncode == 1 and words in last_line(result)
    assert not (checkout.out / "model").exists() and not (checkout.out / "train.done").exists()
    assert len(checkout.calls("train")) == (env == dict(BREAK="error"))


def state_of(pid):
    """Letter of a process in /proc; None where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_a_killed_script_takes_its_training_along_and_is_resumed(checkout):
    if subprocess.run(["setpriv", "--pdeathsig", "KILL", "true"], capture_output=True).returncode:
        pytest.skip("needs setpriv")
    pid_file = checkout.calls_file.with_suffix(".pid")
    script = checkout.start(*PAIR, BREAK="hang")
    while not pid_file.exists() or not pid_file.read_text():
        assert script.poll() is None
        time.sleep(0.05)
    refused = checkout.run(*PAIR)
    assert refused.returncode == 1 and "another run works in" in last_line(refused)
    script.kill()
    script.communicate(timeout=20)
    again = checkout.run(*PAIR)
    assert again.returncode == 0, again.stderr
    assert state_of(int(pid_file.read_text())) in (None, "Z"), "ended, if not looked after yet"
    first, second = checkout.calls("train")
    assert first == second and "--save-dir" in first


@pytest.fixture
def comparing(tmp_path, programs):
    """A checkout in which the scripts that compare run with a real Python."""
    checkout, run = Checkout(tmp_path), Checkout.run
    here = dict(PROGRAMS=str(programs), PYTHONPATH=str(ROOT))
    checkout.run = lambda *args, **env: run(checkout, *args, script="nmt_compare", **here, **env)
    return checkout


def test_comparisons_run_every_model_with_the_same_options(comparing):
    result = comparing.run("lstm", "--from", "x", "--", "--lr", "0.1", JOBS="2", OMP_NUM_THREADS="", BREAK="together")
    assert result.returncode == 0, result.stderr
    trains = sorted(comparing.calls("train"), key=lambda call: call[call.index(" --save-dir") :])
    assert ["--arch lstm " in call for call in trains] == [False, False, True, True, True, True]
    assert all(call.rindex("--lr 0.1") > call.rindex("--lr 0.002") for call in trains)
    prepared = sorted(call.split()[1:] for call in comparing.calls("prepare"))
    assert prepared == [[*pair, "--from", "x"] for pair in (PAIR, ("--source", "en", "--target", "de")) for _ in "123"]
    (compared,) = comparing.calls("report compare")
    models = {"fairseq's lstm, dropout 0.3": "lstm-0.3", "fairseq's lstm, dropout 0.2": "lstm-0.2",
              "attn_lstm_multi30k": "attention"}  # fmt: skip
    rows = [(label, name, pair) for pair in PAIRS for label, name in models.items()]
    shown = [f"{label}, {pair.replace('-', '→')}={comparing.out}/{name}-{pair}" for label, name, pair in rows]
    assert compared == f"report compare {comparing.out} {' '.join(shown)}"
    page = (comparing.out / "plan.json").read_text()
    assert "fairseq-train" in page and page.count('"test1": [') == 6, "with the commands of fairseq"
    assert comparing.run("lstm", "--from", "x", "--", "--lr", "0.1").returncode == 0
    assert len(comparing.calls("train")) == 6 and len(comparing.calls("report compare")) == 2


@pytest.mark.parametrize(
    "given, words",
    [
        ("lstn", "got 'lstn'; choose from lstm, "),
        ("mechanisms --source cs", "--source: the languages are those of mechanisms"),
        ("lstm -- --dropout=0.4", "--dropout: lstm compares two values of it"),
        ("lstm --vocabulary=separate", "--vocabulary: fairseq's lstm shares one table"),
        ("memory -- --attention-score lunog", "--attention-score: got 'lunog'; choose from none, additive"),
    ],
)
def test_mistakes_in_comparisons_are_one_line(comparing, given, words):
    result = comparing.run(*given.split())
    assert result.returncode == 1 and words in last_line(result) and not comparing.calls()


def test_targets_stand_beside_other_runs_and_a_failure_is_reported(comparing):
    single = comparing.root / "runs" / "nmt" / "set.de-en"
    single.mkdir(parents=True)
    (single / "report.json").touch()
    result = comparing.run("targets", "--from", "x", UPDATES="9")
    assert result.returncode == 0, result.stderr
    own = f"de→{{en,fr}}={comparing.out}/de-en+fr"
    assert comparing.calls("report compare") == [f"report compare {comparing.out} {own} set.de-en={single}"]
    assert "--max-update 9 " in comparing.calls("train")[0]
    assert "prepare_corpus.sh --source de --target en,fr --tag-target --from x" in comparing.calls("prepare")[0]
    twice = comparing.run("targets", SINGLE=f"{single} /x/set.de-en")
    assert "two folders have one name" in last_line(twice)
    failed = comparing.run("targets", "--from", "x", "--", "--lr", "1", BREAK="error", OUT=f"{comparing.out}2")
    assert failed.returncode == 1 and "failed: ValueError: --lr: got x" in last_line(failed)


@pytest.mark.slow(seconds=40)
def test_raw_text_to_scores_with_the_real_tools_killed_on_the_way(tmp_path, programs):
    """Programs of the environment until it is killed; what goes on from there starts sooner."""
    corpus = write_parallel_corpus(tmp_path / "raw", {"train": 1000, "valid": 30, "test": 33})
    small = "--encoder-embed-dim 64 --encoder-hidden-size 64 --decoder-embed-dim 64 --decoder-hidden-size 128"
    small += " --decoder-out-embed-dim 64 --dropout 0.1 --max-tokens 200 --lr 0.005 --warmup-updates 50 --max-epoch 8"
    command = ["bash", str(ROOT / "scripts" / "nmt.sh"), *PAIR, "--from", str(corpus), "--out", str(tmp_path / "bin"),
               "--vocab-size", "300", "--", *small.split(), "--cpu", "--num-workers", "0"]  # fmt: skip
    out = tmp_path / "out"
    env = {**os.environ, "OUT": str(out), "VENV": sys.prefix, "AVERAGE": "2"}
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = subprocess.Popen(command, env=env, start_new_session=True, **quiet)
    while not (out / "checkpoints" / "checkpoint2.pt").exists():
        assert first.poll() is None
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    env["VENV"] = str(programs)
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    log = (out / "train.log").read_text()
    assert log.count("$ ") == 2 and "Loaded checkpoint" in log
    report = json.loads((out / "report.json").read_text())
    assert report["epochs"] == 8 and report["tests"]["test"]["sentences"] == 33
    assert report["tests"]["test"]["systems"][0]["BLEU"]["score"] > 30
    assert (out / "attention-test.png").read_bytes().startswith(b"\x89PNG")
    translate = ["bash", str(ROOT / "scripts" / "translate.sh"), str(out / "model")]
    done = subprocess.run(translate, env=env, stdin=open(corpus / "test.de"), capture_output=True, text=True)
    same = [one == two for one, two in zip(done.stdout.split("\n"), (out / "test.hyp").read_text().split("\n"))]
    assert len(same) == 34 and sum(same) >= 33, "translate.sh says what fairseq-generate says"
