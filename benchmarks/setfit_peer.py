"""SetFit itself on the very rows of an aang run, in an environment of its own: the peer of the space ``setfit``.

    python benchmarks/setfit_peer.py rows --task ../shared/data/few/trec --train-rows 100 --seed 0 --out rows.json
    python -m venv setfit && setfit/bin/pip install torch==2.13.0 setfit==1.2.0 transformers==5.24.0
    setfit/bin/python benchmarks/setfit_peer.py train --model MINILM_FOLDER rows.json

The first command needs aang and writes the labelled rows that a run with these flags would train on, its dev and its
test. The last one needs SetFit (pinned; no dependency of aang) and prints one JSON line: scores on dev and test, tokens
read in training, CPU-seconds. Test is read once, for the model at the end.

SetFit needs no dev. ``rows --all-labels`` gives it dev's labels for training, too, as ``training.refit = "all"`` does;
``train --iterations N`` makes fewer pairs, for equal tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

ITERATIONS = 20
"""SetFit's default: 2 · 20 pairs a text, of two texts each."""


def rows(arguments: argparse.Namespace) -> None:
    """Write a seed's rows as JSON, and with ``--model`` where its encoder lies and how its rows are read."""
    import aang_core as aang
    from aang_core.train.resolve import resolve, seed_task

    config = aang.RunConfig.from_mapping(
        {
            "task": arguments.task,
            "train_rows": arguments.train_rows,
            "dev_rows": arguments.dev_rows,
            "split_anew": arguments.split_anew,
            "seeds": [arguments.seed],
            "method": "finetune",
        }
    )
    task = seed_task(resolve(config, aang.load_registry()), arguments.seed)
    if task.kind != "class":
        raise SystemExit(
            f"task {task.name!r} is of kind {task.kind!r}; peers need one class for each row"
        )
    names = ("text", "text_pair", "label")
    found = {
        split: [{n: row[n] for n in names if row.get(n) is not None} for row in examples]
        for split, examples in task.splits.items()
    }
    if arguments.all_labels:
        found["train"] = found["train"] + found.pop("dev")
    said = {"task": task.name, "seed": arguments.seed, "metric": task.metric}
    said |= {"label_names": list(task.label_names), "splits": found}
    if arguments.model:
        said["encoder"] = encoder(arguments)
    Path(arguments.out).write_text(json.dumps(said), encoding="utf-8")


def encoder(arguments: argparse.Namespace) -> dict[str, str]:
    """A folder or hub id that transformers can load, and the pooling that aang would choose for it.

    An encoder without files (``scratch:tiny``) is saved beside the rows.
    """
    from aang_text.encoder.checkpoint import open_checkpoint
    from transformers import AutoModel

    checkpoint = open_checkpoint(arguments.model, "float32", 0)
    folder = checkpoint.path
    if folder is None:
        folder = str(Path(arguments.out).with_suffix("")) + "-encoder"
        checkpoint.build(AutoModel)[0].save_pretrained(folder)
        checkpoint.tokenizer.save_pretrained(folder)
    auto = "mean" if checkpoint.reads_mean else "default"
    pooling = auto if arguments.pooling == "auto" else arguments.pooling
    return {"folder": folder, "pooling": pooling}


def train(arguments: argparse.Namespace) -> None:
    """Train SetFit with its own defaults, and print what came of it."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.metrics import accuracy_score, f1_score

    given = json.loads(Path(arguments.rows).read_text(encoding="utf-8"))
    if any("text_pair" in row for row in given["splits"]["train"]):
        raise SystemExit(f"{arguments.rows} holds pairs of texts; SetFit reads single ones")
    model = SetFitModel.from_pretrained(arguments.model)
    settings = TrainingArguments(
        output_dir=arguments.scratch,
        batch_size=16,
        num_epochs=1,
        num_iterations=arguments.iterations,
        seed=given["seed"],
        report_to="none",
        save_strategy="no",
    )
    labelled = Dataset.from_list(given["splits"]["train"])
    trainer = Trainer(model=model, args=settings, train_dataset=labelled)
    started = time.process_time()
    trainer.train()
    spent = time.process_time() - started
    scores = {}
    for split in ("dev", "test"):
        examples = [row for row in given["splits"].get(split, ()) if "label" in row]
        if not examples:
            scores[split] = None
            continue
        answers = model.predict([row["text"] for row in examples], batch_size=64)
        found, right = [int(a) for a in answers], [row["label"] for row in examples]
        classes = range(len(given["label_names"]))
        f1 = f1_score(right, found, labels=classes, average="macro", zero_division=0)
        scores[split] = {"accuracy": accuracy_score(right, found), "f1": f1}
    texts = [row["text"] for row in given["splits"]["train"]]
    lengths = map(len, model.model_body.tokenizer(texts)["input_ids"])
    tokens = 4 * arguments.iterations * sum(lengths)
    line = {"task": given["task"], "seed": given["seed"], **scores, "tokens": tokens}
    json.dump({**line, "cpu_seconds": spent}, sys.stdout)
    print()


def main() -> None:
    """The two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("rows")
    first.add_argument("--task", required=True)
    first.add_argument("--train-rows", type=int, default=100)
    first.add_argument("--dev-rows", type=int, default=0)
    first.add_argument("--split-anew", type=float, nargs=2, default=())
    first.add_argument("--all-labels", action="store_true", help="dev's labels train, too")
    first.add_argument("--seed", type=int, default=0)
    first.add_argument("--out", required=True)
    first.add_argument("--model", default="", help="also say where this encoder lies")
    first.add_argument("--pooling", default="auto", choices=("auto", "default", "mean"))
    first.set_defaults(run=rows)
    second = commands.add_parser("train")
    second.add_argument("rows")
    second.add_argument("--model", required=True, help="a folder in sentence-transformers' form")
    second.add_argument("--iterations", type=int, default=ITERATIONS)
    second.add_argument("--scratch", default="setfit-scratch")
    second.set_defaults(run=train)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
