"""`distil` written out; the classifier's answers, whose cache survives an interruption; what is refused; whole runs."""

import json

import aang_text.answers as module
import attrs
import pytest
import torch
from _steps import bind, make_step
from _tasks import settings, untimed, write_task
from _teachers import save_classifier
from aang_text.answers import Classifier, answers_of
from aang_text.outputs.distil import distances

import aang_core as aang
from aang_core.batch.packing import prepare
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Hidden
from aang_core.errors import ConfigError, ModelError, TaskError
from aang_core.method.gradient.metagrad import disagreement, fused, looped
from aang_core.registry.legality import Objective, judge
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_backbone, tiny_task

NAMES = ("class-2", "class-0", "class-1")
"""The classes of the tiny task in another order than its own."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def teacher(tmp_path):
    return str(save_classifier(tmp_path / "teacher", NAMES))


def distilled(teacher, source="unlabelled", **options):
    given = {"teacher_model": teacher, **options}
    (objective,) = bind(
        tiny_task(),
        tiny_backbone(torch.float64),
        (f"{source}/no-op/bidirectional/distil",),
        distil=given,
    )
    return objective


def plain_logits(teacher, text):
    """The classifier's answer to one text in the task's order, by transformers alone; and the mean of its states."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(teacher).eval()
    batch = AutoTokenizer.from_pretrained(teacher)(text, return_tensors="pt")
    with torch.no_grad():
        said = model(**batch, output_hidden_states=True)
    order = [NAMES.index(name) for name in tiny_task().label_names]
    return said.logits[0, order], said.hidden_states[-1][0].mean(0)


@pytest.mark.parametrize("relations", [0.0, 0.7])
def test_distillation_written_out(relations, teacher):
    objective = distilled(teacher, temperature=3.0, relations=relations)
    output, draw = objective.output, torch.Generator().manual_seed(0)
    piece = prepare(objective, 5, draw)
    hidden = Hidden(
        torch.randn(
            int(piece.packed.offsets[-1]),
            output.backbone.hidden_size,
            generator=draw,
            dtype=torch.float64,
        ),
        piece.packed.offsets,
    )
    head = output.head().eval()
    losses = output.losses(head, hidden, piece.targets).detach()
    own = head(hidden, torch.arange(5)).detach()
    texts = [tiny_task().unlabelled["text"][origin.document] for origin in piece.packed.origins]
    theirs = [plain_logits(teacher, text) for text in texts]
    means = [part.mean(0) for part in hidden.states.split(piece.packed.lengths.tolist())]

    def relative(vectors):
        gaps = {
            (i, j): float((vectors[i] - vectors[j]).norm())
            for i in range(5)
            for j in range(5)
            if i != j
        }
        mean = sum(gaps.values()) / len(gaps)
        return {pair: gap / mean for pair, gap in gaps.items()}

    mine, seen = relative(means), relative([features for _, features in theirs])
    for row in range(5):
        said = (theirs[row][0].double() / 3).softmax(-1)
        log = (own[row] / 3).log_softmax(-1)
        expected = 9 * sum(
            float(p) * (float(p.log()) - float(q)) for p, q in zip(said, log, strict=True)
        )
        gaps = [mine[row, j] - seen[row, j] for j in range(5) if j != row]
        huber = [0.5 * g**2 if abs(g) < 1 else abs(g) - 0.5 for g in gaps]
        expected += relations * sum(huber) / 4
        assert float(losses[row]) == pytest.approx(expected, rel=2e-3)
    assert output.pointwise is (relations == 0)
    assert output.min_rows == (3 if relations else 1)


def test_three_rows_are_the_fewest_whose_distances_say_something():
    draw = torch.Generator().manual_seed(0)
    two, three = (torch.randn(n, 4, generator=draw, dtype=torch.float64) for n in (2, 3))
    assert distances(two)[0, 1] == pytest.approx(1.0)
    assert len(set(distances(three).flatten().tolist())) > 2


def test_the_same_vectors_are_no_distance_apart_and_have_a_gradient():
    vectors = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    distances(vectors).sum().backward()
    assert bool(vectors.grad.isfinite().all())
    assert torch.equal(distances(vectors.detach()), torch.zeros(3, 3, dtype=torch.float64))


def binding(remarks=None, progress=None):
    more = {"remark": remarks.append} if remarks is not None else {}
    more |= {"progress": progress} if progress is not None else {}
    return Binding(task=tiny_task(), backbone=tiny_backbone(), options={}, **more)


def test_answers_are_the_models_own_in_the_tasks_order_and_are_asked_once(teacher, monkeypatch):
    texts = [{"text": text} for text in [*tiny_task().unlabelled["text"], "7 8 9", "7 8 9"]]
    remarks = []
    first = answers_of(binding(remarks), teacher, texts)
    assert f"answers {len({t['text'] for t in texts})} texts" in remarks[0]
    for place in (0, 7, len(texts) - 1):
        logits, features = plain_logits(teacher, texts[place]["text"])
        torch.testing.assert_close(first.logits[place], logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(first.features[place], features, rtol=2e-3, atol=2e-3)
    monkeypatch.setattr(Classifier, "ask", lambda *_: pytest.fail("asked again"))
    again = answers_of(binding(), teacher, texts[::-1])
    assert torch.equal(again.logits, first.logits.flip(0))
    assert torch.equal(again.features, first.features.flip(0))


def test_an_interruption_loses_a_few_texts_and_changes_no_bit(teacher, cache, monkeypatch):
    texts = [{"text": text} for text in tiny_task().unlabelled["text"]]
    whole = answers_of(attrs.evolve(binding(), cache=cache / "other"), teacher, texts)
    monkeypatch.setattr(module, "_KEPT", 5)

    def stop(what, done, total):
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answers_of(binding(progress=stop), teacher, texts)
    asked, ask = [], Classifier.ask
    monkeypatch.setattr(Classifier, "ask", lambda self, e, d: asked.extend(e) or ask(self, e, d))
    resumed = answers_of(binding(), teacher, texts)
    assert len(asked) == len(texts) - 10
    assert torch.equal(resumed.logits, whole.logits)
    assert torch.equal(resumed.features, whole.features)
    place = next(cache.rglob("*.safetensors"))
    place.write_bytes(place.read_bytes()[:40])
    with pytest.raises(aang.AangError, match="damaged"):
        [
            answers_of(attrs.evolve(binding(), cache=c), teacher, texts)
            for c in (None, cache / "other")
        ]


@pytest.mark.parametrize(
    ("names", "config", "said"),
    [
        (("class-0", "class-1"), {}, "it lacks class-2"),
        (("class-0", "class-1", "class-2", "class-3"), {}, "it has class-3 besides"),
        (
            ("LABEL_0", "LABEL_1", "LABEL_2"),
            {},
            "it lacks class-0, class-1, class-2; it has LABEL_0",
        ),
        (NAMES, {"problem_type": "multi_label_classification"}, "several labels"),
    ],
)
def test_a_teacher_of_other_classes_is_refused_in_words(names, config, said, tmp_path):
    folder = str(save_classifier(tmp_path / "other", names, **config))
    with pytest.raises(ModelError, match=said):
        Classifier(folder, tiny_task(), 64)


def test_what_is_no_classifier_is_refused_in_words(tmp_path, teacher):
    from transformers import BertModel

    BertModel.from_pretrained(teacher).save_pretrained(tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "bare" / name).write_bytes((tmp_path / "teacher" / name).read_bytes())
    with pytest.raises(ModelError, match=r"no fine-tuned classifier.*lack classifier"):
        Classifier(str(tmp_path / "bare"), tiny_task(), 64)
    (tmp_path / "teacher" / "model.safetensors").rename(tmp_path / "teacher" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"teacher_model: .*pickled"):
        Classifier(teacher, tiny_task(), 64)
    with pytest.raises(TaskError, match="give --teacher-model"):
        distilled("")


def test_without_a_teacher_the_objective_is_illegal_and_says_why():
    registry = load_registry()
    chosen = Objective.parse("task/mask/bidirectional/distil", registry)
    open_ = judge(chosen, registry)
    assert "run:teacher-model" in open_.needs
    known = {"task_capabilities": frozenset({"task:class"})}
    lacking = judge(chosen, registry, run_capabilities=frozenset(), **known)
    assert lacking.reason == "distil needs run:teacher-model; give --teacher-model"
    named = aang.RunConfig.from_mapping({"teacher_model": "big"}).capabilities
    assert judge(chosen, registry, run_capabilities=named, **known).needs == ()


@pytest.mark.parametrize("relations", [0.0, 1.0])
def test_one_backward_pass_equals_one_per_objective(relations, teacher):
    ids = (
        "task/mask/bidirectional/distil",
        "unlabelled/delete/bidirectional/distil",
        "task/mask/bidirectional/denoise",
    )
    step = make_step(
        (4, 3, 4, 2),
        ids=ids,
        policy="per-output",
        distil={"teacher_model": teacher, "relations": relations},
    )
    one = fused(step.model, step.batch, step.coefficients, step.dev_gradient)
    gradients = step.gradients()
    other = looped(step.model, step.batch, step.coefficients, step.dev_gradient)
    assert disagreement(one, other) < 1e-12
    for name, gradient in step.gradients().items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-9, atol=1e-12)
    heads = step.model.heads
    assert heads.head(1) is heads.head(2) is heads.head(0)


class Stop(BaseException):
    """Ends a run as a killed process would."""


class Killer(aang.Callback):
    def on_step(self, session, record, progress):
        if progress.done == 3:
            raise Stop


def test_a_run_learns_from_a_finished_run_and_resumes_bit_for_bit(tmp_path):
    task = str(write_task(tmp_path / "boxes"))
    (tmp_path / "texts.txt").write_text(
        "A pear lies in a box.\nTin and zinc.\nAn odd text.\n", "utf-8"
    )
    big = settings(space="td", method="finetune", seeds=[1, 2], training={"final_epochs": 0})
    aang.run(task=task, out=tmp_path / "big", **big)
    given = settings(
        space="distil",
        method="aang",
        train_rows=8,
        teacher_model=str(tmp_path / "big"),
        external={"in-domain": str(tmp_path / "texts.txt")},
        training={"max_steps": 6, "final_epochs": 0},
    )
    report = aang.run(task=task, out=tmp_path / "whole", **given)
    assert {name.partition("/")[0] for name in report.weights["objectives"]} == {
        "task", "unlabelled", "in-domain"
    }  # fmt: skip
    assert any("answers 3 texts of in-domain" in remark for remark in report.seeds[0].remarks)
    assert "teacher_model" in (tmp_path / "whole" / "config.toml").read_text("utf-8")
    with pytest.raises(Stop):
        aang.run(task=task, out=tmp_path / "run", callbacks=Killer(), **given)
    aang.run(out=tmp_path / "run", resume=True)
    for name in ("report.json",):
        one, other = (
            json.loads((tmp_path / r / name).read_text("utf-8")) for r in ("whole", "run")
        )
        assert untimed(one) == untimed(other)
    models = [(tmp_path / r / "model" / "model.safetensors").read_bytes() for r in ("whole", "run")]
    assert models[0] == models[1]
    other = save_classifier(tmp_path / "other", ("fruit", "wood"))
    for changed, error, said in [
        ({"teacher_model": str(tmp_path / "none")}, ConfigError, "there is no such folder"),
        ({"teacher_model": task}, ConfigError, "neither a model nor a finished run"),
        ({"teacher_model": ""}, ConfigError, r"give --teacher-model"),
        ({"teacher_model": str(other)}, ModelError, r"it lacks metal; it has wood besides"),
        ({"space": "td"}, ConfigError, "no objective of the space 'td' learns from a model"),
    ]:
        with pytest.raises(error, match=said):
            aang.run(task=task, out=tmp_path / "refused", **{**given, **changed})
