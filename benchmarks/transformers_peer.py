"""What people write without aang, on the very rows of an aang run: a plain loop, or ``transformers.Trainer``.

    python benchmarks/setfit_peer.py rows --task sample --train-rows 100 --seed 0 --model bundled:minilm --out rows.json
    python benchmarks/transformers_peer.py trainer rows.json --steps 60 --out trainer.json

The second needs torch, transformers, accelerate and scikit-learn, and no aang; `benchmarks/peers.py` calls both.
Both ways train in fp32 with the same head, AdamW groups, schedule and clipping as aang, judge dev every so many steps,
and keep the best. The plain loop goes through the rows in epochs of its own and pads each batch to its longest row.
``trainer`` is `transformers.Trainer` with length grouping, dynamic padding and ``load_best_model_at_end``.

B rows, T positions of the longest, H hidden, C classes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch import nn

EVALUATION_ROWS = 64
MEAN_SCALE = 100.0
"""How much the mean counts beside the first position, as in aang's own reading of the mean."""


class MeanClassifier(nn.Module):
    """An encoder read as the mean of its positions, as aang reads one with ``pooling = "mean"``.

    Norm of the mean, a pooler that begins as the identity, dropout, a new last layer.
    """

    def __init__(self, folder: str, classes: int) -> None:
        super().__init__()
        self.body = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False)
        config = self.body.config
        if config.model_type != "bert":
            raise SystemExit(
                f"pooling 'mean' expects an encoder of BERT's form, found {config.model_type!r} in {folder}; "
                "choose --pooling default"
            )
        self.eps = config.layer_norm_eps
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        given = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if given is None else given)
        self.classifier = nn.Linear(config.hidden_size, classes)
        with torch.no_grad():
            nn.init.eye_(self.pooler.weight)
            self.pooler.bias.zero_()
            self.classifier.weight.normal_(0.0, config.initializer_range)
            self.classifier.bias.zero_()

    def forward(self, input_ids, attention_mask, token_type_ids=None, labels=None):
        """Logits [B, C] from inputs [B, T], and the mean loss where there are labels."""
        inputs = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        states = self.body(input_ids=input_ids, **inputs).last_hidden_state
        real = attention_mask[..., None].to(states.dtype)
        read = MEAN_SCALE * (states * real).sum(1) / real.sum(1) + states[:, 0]
        for _ in range(2):
            read = F.layer_norm(read, read.shape[-1:], eps=self.eps)
        logits = self.classifier(self.dropout(torch.tanh(self.pooler(read))))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return transformers.modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits)


def built(given: dict, seed: int) -> tuple[nn.Module, set[str]]:
    """The classifier, and the names of its parameters that no checkpoint brings."""
    torch.manual_seed(seed)
    encoder, classes = given["encoder"], len(given["label_names"])
    if encoder["pooling"] == "mean":
        return MeanClassifier(encoder["folder"], classes), {"classifier.weight", "classifier.bias"}
    model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        encoder["folder"], num_labels=classes, output_loading_info=True
    )
    return model, set(info["missing_keys"])


def optimizer_of(model: nn.Module, new: set[str], args: argparse.Namespace):
    """AdamW: pretrained and new parameters at rates of their own, no decay of vectors; and aang's schedule."""
    groups: dict[tuple[bool, bool], list] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name in new, parameter.ndim > 1), []).append(parameter)
    tables = [
        {
            "params": members,
            "lr": args.head_lr if fresh else args.lr,
            "weight_decay": (0.1 if fresh else 0.01) if matrix else 0.0,
        }
        for (fresh, matrix), members in groups.items()
    ]
    optimizer = torch.optim.AdamW(tables, betas=(0.9, 0.98), fused=True)
    rising, total = round(args.warmup * args.steps), args.steps

    def scale(step: int) -> float:
        return (step + 1) / rising if step < rising else max(0, total - step) / (total - rising)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, scale)


def encoded(tokenizer, rows: list[dict], args: argparse.Namespace) -> list[dict]:
    """Token ids of each row, cut but not padded; with its label where it has one."""
    found = []
    for row in rows:
        texts = [row[name] for name in ("text", "text_pair") if name in row]
        inputs = dict(tokenizer(*texts, truncation=True, max_length=args.max_length))
        found.append(inputs | ({"labels": row["label"]} if "label" in row else {}))
    return found


@torch.inference_mode()
def predicted(model: nn.Module, rows: list[dict], collate) -> list[int]:
    """The class of each row."""
    model.eval()
    found = []
    for start in range(0, len(rows), EVALUATION_ROWS):
        batch = dict(collate(rows[start : start + EVALUATION_ROWS]))
        batch.pop("labels", None)
        found += model(**batch).logits.argmax(-1).tolist()
    return found


def scored(right: list[int], answers: list[int], classes: int) -> dict[str, float]:
    """Accuracy, and macro-F1 over all classes, as aang has them."""
    from sklearn.metrics import accuracy_score, f1_score

    f1 = f1_score(right, answers, labels=range(classes), average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(right, answers)), "f1": float(f1)}


class Read:
    """Positions that training read: real ones, and with padding."""

    def __init__(self) -> None:
        self.tokens = self.padded = 0

    def count(self, mask: torch.Tensor) -> None:
        """One batch, by its attention mask [B, T]."""
        self.tokens += int(mask.sum())
        self.padded += mask.numel()


def plain(model, new, rows: dict, collate, given: dict, args: argparse.Namespace) -> dict:
    """The loop that anyone writes; leaves the best parameters in the model."""
    optimizer, schedule = optimizer_of(model, new, args)
    random = torch.Generator().manual_seed(given["seed"])
    order: list[int] = []
    read, best, kept = Read(), {"step": 0, "score": -1.0}, {}
    right = [row["labels"] for row in rows["dev"]]
    for step in range(1, args.steps + 1):
        while len(order) < args.rows_a_step:
            order += torch.randperm(len(rows["train"]), generator=random).tolist()
        chosen, order = order[: args.rows_a_step], order[args.rows_a_step :]
        batch = collate([rows["train"][i] for i in chosen])
        read.count(batch["attention_mask"])
        model.train()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % args.eval_every == 0 or step == args.steps:
            answers = predicted(model, rows["dev"], collate)
            score = scored(right, answers, len(given["label_names"]))[given["metric"]]
            if score > best["score"]:
                best = {"step": step, "score": score}
                kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    return {"best_step": best["step"], "tokens": read.tokens, "padded_tokens": read.padded}


def trainer(model, new, rows: dict, collate, given: dict, args: argparse.Namespace) -> dict:
    """`transformers.Trainer` on the same; leaves the best parameters in the model.

    Every step has the same number of rows: the rest of an epoch that would fill no batch is dropped, and fewer rows
    than a batch are repeated.
    """
    read, classes = Read(), len(given["label_names"])

    class Counting(transformers.Trainer):
        def training_step(self, model, inputs, *more):
            read.count(inputs["attention_mask"])
            return super().training_step(model, inputs, *more)

        def get_eval_dataloader(self, *given):
            self.args.dataloader_drop_last = False  # it would drop the last rows of dev, too
            return super().get_eval_dataloader(*given)

    with tempfile.TemporaryDirectory() as scratch:
        settings = transformers.TrainingArguments(
            output_dir=scratch,
            max_steps=args.steps,
            per_device_train_batch_size=args.rows_a_step,
            per_device_eval_batch_size=EVALUATION_ROWS,
            dataloader_drop_last=True,
            dataloader_pin_memory=False,
            train_sampling_strategy="group_by_length",
            max_grad_norm=args.clip,
            eval_strategy="steps",
            eval_steps=args.eval_every,
            save_strategy="steps",
            save_steps=args.eval_every,
            save_total_limit=1,
            save_only_model=True,
            load_best_model_at_end=True,
            metric_for_best_model=given["metric"],
            seed=given["seed"],
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        )
        running = Counting(
            model=model,
            args=settings,
            data_collator=collate,
            train_dataset=rows["train"] * -(-args.rows_a_step // len(rows["train"])),
            eval_dataset=rows["dev"],
            compute_metrics=lambda p: scored(p.label_ids, p.predictions.argmax(-1), classes),
            optimizers=optimizer_of(model, new, args),
        )
        running.remove_callback(transformers.PrinterCallback)
        running.train()
    best = int((running.state.best_model_checkpoint or "-0").rpartition("-")[2])
    return {"best_step": best, "tokens": read.tokens, "padded_tokens": read.padded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("way", choices=("plain", "trainer"))
    parser.add_argument("rows", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows-a-step", type=int, default=48)
    parser.add_argument("--eval-every", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--head-lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=float, default=0.06)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--max-length", type=int, default=128)
    args = parser.parse_args()
    given = json.loads(args.rows.read_text(encoding="utf-8"))
    started = time.process_time()
    tokenizer = transformers.AutoTokenizer.from_pretrained(given["encoder"]["folder"])
    collate = transformers.DataCollatorWithPadding(tokenizer)
    rows = {name: encoded(tokenizer, split, args) for name, split in given["splits"].items()}
    model, new = built(given, given["seed"])
    found = {"plain": plain, "trainer": trainer}[args.way](model, new, rows, collate, given, args)
    found |= {"training_cpu_seconds": time.process_time() - started, "steps": args.steps}
    for split in ("dev", "test"):
        labelled = [row for row in rows.get(split, ()) if "labels" in row]
        right = [row["labels"] for row in labelled]
        answers = predicted(model, labelled, collate)
        found[split] = scored(right, answers, len(given["label_names"])) if labelled else None
    found["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    args.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
