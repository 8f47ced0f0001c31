"""Plain fine-tuning, `transformers.Trainer`, aang and SetFit on the same rows: what each costs and what it scores.

    python benchmarks/peers.py --task ../shared/data/few/trec --train-rows 100 --steps 60 --seed 0 1 --out peers

Every run is a fresh process, and the peers take turns (A B C A B C …), so that a machine whose speed drifts slows all.
They have the same labelled rows, the same dev, the same learning rates, and as many steps of as many rows. CPU-seconds,
wall seconds and peak memory are those of the whole process: imports, loading, evaluation, what it writes, test. Ratios
are to ``trainer``, from runs of the same turn and seed. The peers:

- ``plain``: the loop that anyone writes: AdamW, linear warm-up and decay, dropout, padding to the longest row;
- ``trainer``: `transformers.Trainer` with length grouping, dynamic padding and ``load_best_model_at_end``;
- ``aang-finetune``: ``aang run --method finetune``, all rows of a step labelled (``row_budget = "end-task"``);
- ``aang-static``, ``aang-td``: the space ``td`` with equal and with learned weights;
- ``aang-setfit``: ``--space setfit``;
- ``setfit``: SetFit itself with its own defaults, so its steps and rates are its own; needs ``--setfit-python``.

``plain`` and ``trainer`` run in ``--python``'s environment (the present one by default), SetFit in one of its own:

    python -m venv peer
    peer/bin/pip install torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 scikit-learn==1.9.1
    python -m venv setfit && setfit/bin/pip install torch==2.13.0 setfit==1.2.0 transformers==5.24.0

Each run adds a line to ``OUT/runs.jsonl``. The same command continues after an interruption. With more ``--repeats``,
seeds or peers it runs what is missing; with other settings it refuses.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
AANG = {
    "aang-finetune": ("--method", "finetune", "--set", "training.row_budget=end-task"),
    "aang-static": ("--method", "static", "--space", "td"),
    "aang-td": ("--method", "aang", "--rule", "aang", "--space", "td"),
    "aang-setfit": ("--space", "setfit"),
}
PEERS = ("plain", "trainer", *AANG, "setfit")
BASE = "trainer"
FIXED = (
    *("task", "model", "pooling", "train_rows", "steps", "end_task_rows", "auxiliary_rows"),
    *("eval_every", "lr", "head_lr", "warmup", "max_length", "threads"),
)
"""Settings that all runs of one folder share."""
LOG_LINES = 12


def command(peer: str, seed: int, args: argparse.Namespace, folder: Path) -> list[str]:
    """What runs one peer; it writes below `folder`."""
    given = rows_file(args, seed)
    if peer == "setfit":
        ours = [args.setfit_python, HERE / "setfit_peer.py", "train", given]
        return [*map(str, ours), "--model", encoder(given)["folder"], "--scratch", str(folder)]
    shared = {"lr": args.lr, "head_lr": args.head_lr, "warmup": args.warmup}
    shared |= {"eval_every": args.eval_every, "max_length": args.max_length, "clip": 1.0}
    if peer in AANG:
        shared |= {"patience": args.steps, "final_epochs": 0, "refit": "none"}
        shared |= {"end_task_rows": args.end_task_rows, "auxiliary_rows": args.auxiliary_rows}
        if peer != "aang-setfit":  # whose space chooses the mean
            shared["pooling"] = encoder(given)["pooling"]
        return [
            *(sys.executable, "-m", "aang_cli", "run", *AANG[peer], "--quiet", "--against", "none"),
            *("--task", args.task, "--train-rows", str(args.train_rows), "--seed", str(seed)),
            *("--model", model_of(args, given), "--max-steps", str(args.steps), "--device", "cpu"),
            *(
                word
                for name, value in shared.items()
                for word in ("--set", f"training.{name}={value}")
            ),
            *("--out", str(folder / "run")),
        ]
    shared |= {"steps": args.steps, "rows_a_step": args.end_task_rows + args.auxiliary_rows}
    return [
        *(args.python, str(HERE / "transformers_peer.py"), peer, str(given)),
        *("--out", str(folder / "result.json")),
        *(word for name, value in shared.items() for word in (flag(name), str(value))),
    ]


def flag(name: str) -> str:
    """``--head-lr`` for ``head_lr``."""
    return "--" + name.replace("_", "-")


def model_of(args: argparse.Namespace, given: Path) -> str:
    """The encoder for aang: by its name, or the folder that the peers read where it has no files of its own."""
    return encoder(given)["folder"] if args.model.startswith("scratch:") else args.model


def encoder(given: Path) -> dict:
    """Folder and pooling, as written beside a seed's rows."""
    return json.loads(given.read_text(encoding="utf-8"))["encoder"]


def rows_file(args: argparse.Namespace, seed: int) -> Path:
    """The labelled rows of a seed."""
    return args.out / f"rows-{seed}.json"


def outcome(peer: str, folder: Path, printed: str) -> dict:
    """What a finished run says of itself: scores on dev and test, tokens, its own count of CPU-seconds."""
    if peer == "setfit":
        said = json.loads(printed.splitlines()[-1])
        return {**pick(said, "dev", "test", "tokens"), "training_cpu_seconds": said["cpu_seconds"]}
    if peer not in AANG:
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))
    report = json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))
    said, cost = report["seeds"][0], report["seeds"][0]["cost"]
    found = pick(said, "dev", "test", "steps", "best_step")
    found |= {"tokens": cost["tokens"], "padded_tokens": cost["tokens"]}  # packed: no padding
    return {**found, "training_cpu_seconds": cost["cpu_seconds"]}


def pick(table: dict, *names: str) -> dict:
    """These entries."""
    return {name: table[name] for name in names}


def measured(words: list[str], what: str, args: argparse.Namespace, log: Path) -> dict:
    """Run a process to its end: CPU-seconds with those of its own children, wall seconds, peak memory.

    This process stays small and imports no torch, because Linux counts the memory of whoever starts a process as the
    least of that process's peak.
    """
    threads = str(args.threads)
    here = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    quiet = {"TOKENIZERS_PARALLELISM": "false", "AANG_PAGE": "none", "AANG_AGAINST": "none"}
    environment = {"HF_HUB_OFFLINE": "1", **os.environ, **here, **quiet}
    started = time.perf_counter()
    with log.open("wb") as errors, log.with_suffix(".out").open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=errors, env=environment)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = "\n".join(
            log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        )
        raise SystemExit(
            f"{what} ended with {process.returncode}; what ran before is kept, and the same command goes on. "
            f"Its last lines (all in {log}):\n{last}"
        )
    return {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "wall_seconds": time.perf_counter() - started,
        "peak_memory_mib": used.ru_maxrss / 1024,
    }


def begin(args: argparse.Namespace) -> None:
    """Make the folder, or make sure that it was begun with the same settings.

    Each seed's rows are written once.
    """
    args.out.mkdir(parents=True, exist_ok=True)
    mark, here = args.out / "settings.json", {name: getattr(args, name) for name in FIXED}
    if mark.exists():
        there = json.loads(mark.read_text(encoding="utf-8"))
        if differing := [
            f"{n} is {here[n]!r}, there {there.get(n)!r}" for n in FIXED if here[n] != there.get(n)
        ]:
            raise SystemExit(
                f"{args.out} was begun with other settings: {'; '.join(differing)}; give the same, or another --out"
            )
    elif any(args.out.iterdir()):
        raise SystemExit(f"{args.out} is not empty and has no settings.json; choose another --out")
    else:
        mark.write_text(json.dumps(here, indent=1), encoding="utf-8")
    for seed in args.seed:
        if not rows_file(args, seed).exists():
            partial = rows_file(args, seed).with_suffix(".partial")
            words = [sys.executable, str(HERE / "setfit_peer.py"), "rows", "--task", args.task]
            words += [
                "--train-rows",
                str(args.train_rows),
                "--seed",
                str(seed),
                "--out",
                str(partial),
            ]
            words += ["--model", args.model, "--pooling", args.pooling]
            measured(words, f"writing the rows of seed {seed}", args, args.out / "rows.log")
            partial.rename(rows_file(args, seed))


def check_environments(args: argparse.Namespace) -> None:
    """Find out what is missing before anything is measured."""
    wanted = {"setfit": (args.setfit_python, "setfit", "--setfit-python")}
    wanted |= dict.fromkeys(
        PEERS[:2], (args.python, "transformers, accelerate, sklearn", "--python")
    )
    for peer in args.peers:
        if peer in wanted:
            python, modules, name = wanted[peer]
            if not python:
                raise SystemExit(
                    f"the peer {peer} needs an environment of its own: {name} PYTHON (see --help)"
                )
            code = f"import importlib.util as u; print([m for m in {modules!r}.split(', ') if not u.find_spec(m)])"
            if not shutil.which(python):
                raise SystemExit(f"{name} {python}: there is no such program")
            found = subprocess.run(
                [python, "-c", code], capture_output=True, text=True, check=False
            )
            if found.stdout.strip() != "[]":
                lacks = found.stdout.strip() or found.stderr.strip()
                raise SystemExit(
                    f"{name} {python} lacks {lacks}, which the peer {peer} needs (see --help)"
                )


def finished(out: Path) -> list[dict]:
    """The runs so far; a last line that was cut off by an interruption is removed."""
    path = out / "runs.jsonl"
    if not path.exists():
        return []
    whole, _, cut = path.read_bytes().rpartition(b"\n")
    if cut:
        path.write_bytes(whole + b"\n" if whole else b"")
    return [json.loads(line) for line in whole.splitlines()]


def run_missing(args: argparse.Namespace) -> list[dict]:
    """Every run that is asked for, those that were there and new ones, in turns."""
    runs = finished(args.out)
    known = {(run["peer"], run["seed"], run["repeat"]): run for run in runs}
    wanted = [(p, s, r) for r in range(args.repeats) for s in args.seed for p in args.peers]
    for number, key in enumerate(wanted, 1):
        if key in known:
            continue
        peer, seed, repeat = key
        what = f"{peer}, seed {seed}, repeat {repeat}"
        print(f"{number} of {len(wanted)}: {what}", file=sys.stderr)
        folder = args.out / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        log = args.out / f"{peer}.log"
        cost = measured(command(peer, seed, args, folder), what, args, log)
        printed = log.with_suffix(".out").read_text(encoding="utf-8")
        known[key] = {"peer": peer, "seed": seed, "repeat": repeat, **cost}
        known[key] |= outcome(peer, folder, printed)
        with (args.out / "runs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(known[key]) + "\n")
        shutil.rmtree(folder)
    return [known[key] for key in wanted]


def summary(runs: list[dict]) -> list[dict]:
    """A row a peer: medians of costs, means of scores, and medians of ratios to `BASE` in the same turn."""
    peers = list(dict.fromkeys(run["peer"] for run in runs))
    base = {(run["seed"], run["repeat"]): run for run in runs if run["peer"] == BASE}
    found = []
    for peer in peers:
        own = [run for run in runs if run["peer"] == peer]
        row: dict = {"peer": peer, "runs": len(own)}
        for name in (
            "cpu_seconds",
            "training_cpu_seconds",
            "wall_seconds",
            "peak_memory_mib",
            "tokens",
        ):
            row[name] = statistics.median(run[name] for run in own)
            ratios = [run[name] / base[place][name] for run in own if (place := turn(run)) in base]
            row[f"{name}_ratio"] = statistics.median(ratios) if ratios else None
        for split in ("dev", "test"):
            for metric in ("accuracy", "f1"):
                scores = [run[split][metric] for run in own if run[split]]
                row[f"{split}_{metric}"] = statistics.fmean(scores) if scores else None
        found.append(row)
    return found


def turn(run: dict) -> tuple[int, int]:
    """What the runs that are compared with each other have in common."""
    return run["seed"], run["repeat"]


def table(rows: list[dict]) -> str:
    """Markdown: costs, scores in percent, and × for the ratio to `BASE`."""
    head = ("peer", "CPU s", "×", "training CPU s", "×", "wall s", "×", "MiB", "×", "tokens")
    head += ("dev acc", "dev F1", "test acc", "test F1")
    lines = [f"| {' | '.join(head)} |", "|---|" + "--:|" * 13]
    for row in rows:
        cells = [row["peer"]]
        for name, digits in (
            ("cpu_seconds", 1),
            ("training_cpu_seconds", 1),
            ("wall_seconds", 1),
            ("peak_memory_mib", 0),
        ):
            ratio = row[f"{name}_ratio"]
            cells += [f"{row[name]:.{digits}f}", "" if ratio is None else f"{ratio:.2f}"]
        cells.append(f"{row['tokens']:,.0f}")
        for name in ("dev_accuracy", "dev_f1", "test_accuracy", "test_f1"):
            cells.append("" if row[name] is None else f"{100 * row[name]:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line, with the peers resolved."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="sample")
    parser.add_argument("--model", default="bundled:minilm")
    parser.add_argument("--pooling", default="auto", choices=("auto", "default", "mean"))
    parser.add_argument("--train-rows", type=int, default=100, help="0 for all")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--end-task-rows", type=int, default=16)
    parser.add_argument(
        "--auxiliary-rows", type=int, default=32, help="labelled ones in fine-tuning"
    )
    parser.add_argument(
        "--eval-every", type=int, default=20, help="steps between evaluations on dev"
    )
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--head-lr", type=float, default=1e-3, help="of new parameters")
    parser.add_argument("--warmup", type=float, default=0.06, help="share of the steps")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--repeats", type=int, default=1, help="turns of all peers and seeds")
    parser.add_argument(
        "--peers", nargs="+", choices=PEERS, help="default: the first three, and SetFit where it is"
    )
    parser.add_argument("--python", default=sys.executable, help="for plain and trainer")
    parser.add_argument("--setfit-python", default="", help="of an environment with SetFit")
    parser.add_argument("--out", type=Path, default=Path("peers"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    least = ("steps", "end_task_rows", "eval_every", "threads", "repeats")
    if wrong := [flag(name) for name in least if getattr(args, name) < 1]:
        parser.error(f"{', '.join(wrong)} must be at least 1")
    if args.steps % args.eval_every:
        parser.error("--steps must be a multiple of --eval-every, so that all judge the last step")
    args.peers = args.peers or [*PEERS[:3], *(["setfit"] if args.setfit_python else [])]
    return args


def main() -> None:
    args = arguments()
    check_environments(args)
    begin(args)
    runs = run_missing(args)
    rows = summary(runs)
    if args.json:
        print(
            json.dumps(
                {"settings": {n: getattr(args, n) for n in FIXED}, "peers": rows, "runs": runs},
                indent=1,
            )
        )
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
