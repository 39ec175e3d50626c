"""scripts/transduce.sh: what it runs, skips and says, with stand-ins for preparing, training and decoding; and one
small real run that is killed and started again."""

import contextlib
import gzip
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from covering import in_full

from fairseq_attn_plugin.data import data_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
WORDS = {"train": (0, 15), "dev": (15, 21), "test": (21, 27)}
"""Which words a split has."""

PREPARE = r"""#!/usr/bin/env bash
echo "prepare $*" >>"$CALLS"
while [ $# -gt 0 ]; do
  case $1 in --set) set=$2 ;; --out) out=$2 ;; --valid) valid=$2 ;; --test) test=$2 ;; esac
  shift
done
case ${BREAK:-} in
  *"prepare $set"*) echo noise >&2; echo "error: $valid:3: no second column" >&2; exit 2 ;;
esac
data=$out/$set.letters-phones
mkdir -p "$data/text"
cp "$DATA_JSON"/* "$data"
[ "$set" = together ] && letters=1,2 phones=3 || letters=1 phones=2
cut -f $letters "$valid" >"$data/text/valid.letters"; cut -f $phones "$valid" >"$data/text/valid.phones"
cut -f $letters "$test" >"$data/text/test.letters"; cut -f $phones "$test" >"$data/text/test.phones"
echo "$data"
"""
DECODE = r"""
# decode DATA SPLIT FOLDER WRONG...: a log in which the words of these numbers are wrong
decode() {
  local number=0 line text data=$1 split=$2 folder=$3
  shift 3
  mkdir -p "$folder"
  while IFS= read -r line; do
    text=$line
    case " $* " in *" $number "*) text="x $number" ;; esac
    printf 'S-%s\ta\nT-%s\t%s\nH-%s\t-0.5\t%s\nD-%s\t-0.5\t%s\nP-%s\t-0.5 -0.5\n' \
      $number $number "$line" $number "$text" $number "$text" $number
    number=$((number + 1))
  done <"$data/text/$split.phones" >"$folder/generate-$split.txt"
  echo "Generate $split with beam=5: ok" >>"$folder/generate-$split.txt"
}
"""
NMT = rf"""#!/usr/bin/env bash
echo "nmt $OUT $UPDATES $BEAM $SPLITS $OMP_NUM_THREADS $*" >>"$CALLS"
{DECODE}
run=${{OUT##*/}} language=${{OUT%/*}}
language=${{language##*/}}
case ${{BREAK:-}} in
  *"train $language") echo "nmt.sh: train in $OUT failed: ValueError: --lr: got x (log: l)" >&2; exit 1 ;;
  "hang $language") echo $$ >>"$CALLS.pids"; exec sleep 60 ;;
  together) until [ "$(grep -c ^nmt "$CALLS")" -ge 2 ]; do sleep 0.05; done ;;
esac
mkdir -p "$OUT/model" "$OUT/checkpoints"
echo "$run" >"$OUT/model/checkpoint.pt"
case $run in base-seed1) wrong="0 1" ;; base-*) wrong="1" ;; content-*) wrong="0 3" ;; *) wrong="0 1 2 3 4" ;; esac
data=${{OUT%/*/*}}/data/$language.letters-phones
decode "$data" valid "$OUT" $wrong
decode "$data" test "$OUT" $wrong 5
touch "$OUT/train.done"
"""
GENERATE = rf"""#!/usr/bin/env bash
echo "generate $*" >>"$CALLS"
{DECODE}
data=$1
while [ $# -gt 0 ]; do
  case $1 in --results-path) folder=$2 ;; --gen-subset) split=$2 ;; --path) models=$2 ;; esac
  shift
done
[ "${{BREAK:-}}" != "ensemble $split" ] || {{ echo 'RuntimeError: no memory' >&2; exit 1; }}
case ${{folder##*/ensemble-}} in base) wrong="1" ;; base+content) wrong="" ;; *) wrong="0 1 2" ;; esac
decode "$data" "$split" "$folder" $wrong
"""
PYTHON = """#!/usr/bin/env bash
exec "$PROGRAMS/bin/python" "$@"
"""


def write_tables(folder, languages, names="{}_{}.tsv"):
    """A table per split: word TAB its letters, apart, in capitals."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["".join(letters) for letters in itertools.product("abc", repeat=3)]
    for language, (split, (start, end)) in itertools.product(languages, WORDS.items()):
        text = "".join(f"{word}\t{' '.join(word.upper())}\n" for word in words[start:end])
        (folder / names.format(language, split)).write_text(text)
    return folder


class Checkout:
    """A copy of the scripts under a path with a space, with stand-ins for everything that takes long."""

    def __init__(self, folder: Path, programs: Path):
        self.root, self.out, self.calls_file = folder / "a b", folder / "out put", folder / "calls"
        self.tables = write_tables(folder / "t", ["aa", "bb"])
        self.env = dict(
            OUT=self.out, VENV=self.root / "venv", CALLS=self.calls_file, PYTHONPATH=ROOT, PROGRAMS=programs,
            DATA_JSON=folder / "json", PROGRESS="1",
        )  # fmt: skip
        (folder / "json").mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        self.write("scripts/setup.sh", "#!/usr/bin/env bash\n")
        self.write("scripts/nmt.sh", NMT)
        self.write("data-prep/prepare_corpus.sh", PREPARE)
        self.write("venv/bin/fairseq-generate", GENERATE)
        self.write("venv/bin/python", PYTHON)
        write_data_json(folder / "json")

    def write(self, name: str, text: str):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *args, **env):
        return subprocess.Popen(
            ["bash", str(self.root / "scripts" / "transduce.sh"), *map(str, args)], cwd="/", text=True,
            env={**os.environ, **{name: str(value) for name, value in {**self.env, **env}.items()}},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *args, **env):
        process = self.start("--from", self.tables, *args, **env)
        output, errors = process.communicate(timeout=120)
        assert "Traceback" not in errors
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def calls(self, verb=""):
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return [line for line in lines if line.startswith(verb)]


def write_data_json(folder):
    """What the stand-in for preparing gives to every language."""
    for side in ("letters", "phones"):
        (folder / data_folder.dictionary_file(side)).write_text("")
    settings = data_folder.describe(folder, "letters", ["phones"], False, "none", {})
    (folder / data_folder.DATA_FILE).write_text(json.dumps(settings))


@pytest.fixture
def checkout(tmp_path, programs):
    return Checkout(tmp_path, programs)


def test_everything_once_and_the_table(checkout):
    env = dict(SEEDS="1 2", MEMBERS="content base", UPDATES="030", JOBS="2")
    words = ("--normalization", "nfc", "--", "--user-dir", "mine", "--dropout", "0.3")
    result = checkout.run(*words, BREAK="together", **env)
    assert result.returncode == 0, result.stderr
    prepared, trained, decoded = checkout.calls("prepare"), checkout.calls("nmt"), checkout.calls("generate")
    assert (len(prepared), len(trained), len(decoded)) == (2, 8, 6)
    assert f"--train {checkout.tables}/aa_train.tsv --valid {checkout.tables}/aa_dev.tsv" in "\n".join(prepared)
    assert all(call.endswith("--normalization nfc") for call in prepared)
    assert all(" 30 5 valid test 1 --train" in call and "--dropout 0.3" in call for call in trained)
    one = next(call for call in trained if "aa/content-seed2 " in call)
    assert one.endswith("--dropout 0.3 --attention-addressing none --attention-normalizer entmax15 --seed 2")
    assert "--validate-interval-updates 3 " in one
    models = [f"{checkout.out}/bb/{name}/model/checkpoint.pt" for name in
              ("base-seed1", "base-seed2", "content-seed1", "content-seed2")]  # fmt: skip
    assert all(" --user-dir mine " in call for call in decoded)
    assert sum(f"--path {':'.join(models)} --gen-subset test" in call for call in decoded) == 1
    table = (checkout.out / "report.md").read_text()
    assert table == result.stdout and "| aa | 6 | 50.00 | 41.67 | 50.00 ± 33.33 | 0.00 ± 0.00 |" in table
    report = json.loads((checkout.out / "report.json").read_text())
    assert report["ensemble"] == ["base", "content"] and report["mean"]["ensemble"]["score"] == 0
    assert re.search(r"transduce: 8 of 8 trainings|transduce: \d of 8 trainings", result.stderr)
    calls = checkout.calls()
    again = checkout.run(*words, **env)
    assert (again.returncode, again.stdout) == (0, result.stdout)
    assert [call.split()[0] for call in checkout.calls()[len(calls) :]] == ["prepare", "prepare"]


def test_one_model_for_all_languages(checkout):
    with gzip.open(checkout.tables / "bb_test.tsv.gz", "wt", newline="") as table:
        table.write("\ufeff" + (checkout.tables / "bb_test.tsv").read_text().replace("\n", "\r\n\n"))
    (checkout.tables / "bb_test.tsv").unlink()
    result = checkout.run("--together", MEMBERS="base")
    assert result.returncode == 0, result.stderr
    assert "transduce: 2 languages together, 1 models, 1 seeds: 1 trainings" in result.stderr
    ((_, *options),) = (call.split() for call in checkout.calls("prepare"))
    assert options[options.index("--columns") + 1] == "1+2,3" and "features,char" in options
    assert len(checkout.calls("nmt")) == 1 and "/together/base-seed1 4000 5 " in checkout.calls("nmt")[0]
    for split, (start, end) in WORDS.items():
        lines = (checkout.out / "together" / f"{split}.tsv").read_text().split("\n")
        assert len(lines) == 2 * (end - start) + 1 and re.fullmatch(r"bb\t[abc]{3}\t[ABC] [ABC] [ABC]", lines[-2])
    rows = [re.sub(r" ± \S+", "", line) for line in result.stdout.splitlines()[2:5]]
    assert rows == ["| aa | 6 | 50.00 | 50.00 | 16.67 |", "| bb | 6 | 0.00 | 0.00 | 0.00 |",
                    "| mean | 12 | 25.00 | 25.00 | 8.33 |"]  # fmt: skip
    (checkout.tables / "bb_dev.tsv").write_text("")
    empty = checkout.run("--together", MEMBERS="base", OUT=f"{checkout.out}2")
    last = f"transduce.sh: {checkout.tables}/bb_dev.tsv: empty, or no file that can be read"
    assert empty.returncode == 1 and empty.stderr.splitlines()[-1] == last


def test_a_language_that_fails_is_reported_and_the_others_go_on(checkout):
    write_tables(checkout.tables, ["cc"])
    result = checkout.run(MEMBERS="base", BREAK="prepare bb, train cc")
    assert result.returncode == 1
    bb, cc = result.stderr.splitlines()[-2:]
    told = f"the data: error: {checkout.tables}/bb_dev.tsv:3: no second column (log: "
    assert bb.startswith(f"transduce: bb failed: {told}")
    assert cc.startswith("transduce: cc failed: base-seed1: nmt.sh: train in ") and "ValueError: --lr: got x" in cc
    assert "| aa | 6 | 50.00 |" in result.stdout and "| bb | – |" in result.stdout and "| cc | – |" in result.stdout
    assert list(json.loads((checkout.out / "report.json").read_text())["failed"]) == ["bb", "cc"]
    mended = checkout.run(MEMBERS="base")
    assert mended.returncode == 0 and "| bb | 6 | 50.00 |" in mended.stdout and "Without" not in mended.stdout


def test_where_all_fails_there_is_no_table(checkout):
    result = checkout.run(MEMBERS="base", BREAK="ensemble valid", LANGUAGES="aa")
    assert result.returncode == 1 and result.stdout == ""
    failed, last = result.stderr.splitlines()[-2:]
    assert failed.startswith("transduce: aa failed: ensemble-base: transduce.sh: generate-valid in ")
    assert "RuntimeError: no memory" in failed and last == "transduce.sh: every language failed"


def test_a_killed_run_leaves_nothing_at_work(checkout):
    process = checkout.start("--from", checkout.tables, MEMBERS="base", BREAK="hang bb")
    pids = Path(f"{checkout.calls_file}.pids")
    while process.poll() is None and not (pids.exists() and pids.read_text().strip()):
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=20)
    pid = int(pids.read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    done = checkout.run(MEMBERS="base")
    assert done.returncode == 0 and len([call for call in checkout.calls("nmt") if "/aa/" in call]) == 1


@pytest.mark.parametrize(
    "words, env, message",
    [
        (("fr",), {}, "got 'fr'; choose from g2p, inflection"),
        (("--from", ""), {}, "--from: not given; give the folder with LANGUAGE_train.tsv, _dev.tsv and _test.tsv"),
        (("--set", "x"), {}, "--set: the files are those of --from, and everything goes to OUT=; leave it out"),
        (("--", "--seed", "3"), {}, "--seed: give SEEDS="),
        (("--", "--max-update=3"), {}, "--max-update: give UPDATES="),
        (("--", "--save-dir", "x"), {}, "--save-dir: checkpoints and logs are in the folder of the run"),
        ((), {"MEMBERS": "base huge"}, "MEMBERS: got 'huge'; choose from base, content, wide"),
        ((), {"LANGUAGES": "xx"}, "LANGUAGES: got 'xx'; choose from aa, bb"),
        ((), {"SEEDS": "1 x"}, "SEEDS: got 'x'; give numbers with blanks between them"),
        ((), {"UPDATES": "0"}, "UPDATES: got '0'; give a number, 1 or more"),
        ((), {"OUT": "/a:b"}, "OUT: got '/a:b'; fairseq takes : for the end of a path; set it to another folder"),
    ],
)
def test_mistakes_are_one_line(checkout, words, env, message):
    mode = () if not words or words[0].startswith("-") else words
    process = checkout.start(*mode, "--from", checkout.tables, *(words if not mode else ()), **env)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "") and len(errors.splitlines()) == 1
    assert errors.startswith(f"transduce.sh: {message}") and not checkout.calls()


def kill_session(leader: int) -> None:
    """Jobs have process groups of their own."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[3]) == leader:
                os.kill(int(stat.parent.name), signal.SIGKILL)


@in_full
@pytest.mark.slow(seconds=60)
def test_a_real_run_that_is_killed_ends_with_the_same_table(tmp_path, programs):
    """All tools are real; the model is small, and learns enough that a table of noise would be another one. Programs of
    the environment until it is killed; what goes on from there starts sooner."""
    words = ["".join(letters) for letters in itertools.product("abcd", repeat=4)]
    np.random.default_rng(1).shuffle(words)
    for split, chosen in (("train", words[:200]), ("dev", words[200:228]), ("test", words[228:])):
        text = "".join(f"{word}\t{' '.join(word.upper())}\n" for word in chosen)
        (tmp_path / f"aa_{split}.tsv").write_text(text)
    small = "--encoder-embed-dim 16 --encoder-hidden-size 16 --decoder-embed-dim 16 --decoder-hidden-size 32"
    small += " --decoder-out-embed-dim 16 --dropout 0.1 --max-tokens 200 --lr 0.02 --cpu --num-workers 0"
    command = ["bash", str(ROOT / "scripts" / "transduce.sh"), "--from", str(tmp_path), "--", *small.split()]
    env = {**os.environ, "VENV": str(programs), "MEMBERS": "base", "UPDATES": "150"}

    def run(out):
        return subprocess.run(command, env={**env, "OUT": str(out)}, capture_output=True, text=True)

    whole = run(tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    killed, checkpoints = tmp_path / "killed", tmp_path / "killed" / "aa" / "base-seed1" / "checkpoints"
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    real = {**env, "VENV": sys.prefix, "OUT": str(killed)}
    first = subprocess.Popen(command, env=real, start_new_session=True, **quiet)
    while not (checkpoints / "checkpoint_last.pt").exists():
        assert first.poll() is None
        time.sleep(0.02)
    kill_session(first.pid)
    first.wait()
    again = run(killed)
    assert again.returncode == 0, again.stderr
    log = (checkpoints.parent / "train.log").read_text()
    assert log.count("$ ") == 2 and "Loaded checkpoint" in log
    assert again.stdout == whole.stdout
    assert (killed / "report.json").read_text() == (tmp_path / "whole" / "report.json").read_text()
    ours, theirs = ((out / "aa/ensemble-base/generate-test.txt").read_text() for out in (killed, tmp_path / "whole"))
    lines = [re.findall(r"^[HDP]-.*$", text, re.M) for text in (ours, theirs)]
    assert lines[0] == lines[1] and len(lines[0]) == 3 * 28
    assert json.loads((killed / "report.json").read_text())["mean"]["ensemble"]["score"] < 60
