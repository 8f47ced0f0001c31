"""`TextClassifier` keeps scikit-learn's conventions, and what it leaves needs nothing but transformers."""

import pickle
from functools import partial

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks

from aang_core import TextClassifier
from aang_core.config.file import build_config, dump_config
from aang_core.errors import ConfigError, RunError, TaskError
from aang_core.registry.registry import registry_named
from aang_core.registry.spaces import suggestions

pandas = pytest.importorskip("pandas")

TINY = {
    "model": "scratch:tiny",
    "method": "finetune",
    "max_steps": 1,
    "device": "cpu",
    "verbose": 0,
    "settings": {
        "training": {"eval_every": 1, "final_epochs": 0, "max_length": 16, "end_task_rows": 4}
    },
}
TEXTS = [f"the {'cat' if i % 2 else 'dog'} number {i} runs" for i in range(24)]
ANIMALS = ["cat" if i % 2 else "dog" for i in range(24)]


def tiny(**changed) -> TextClassifier:
    return TextClassifier(**{**TINY, **changed})


class OnNumbers(TextClassifier):
    """For checks that come with tables of numbers: a row becomes a text of its rounded numbers."""

    def fit(self, X, y):
        return super().fit(_texts(X), y)

    def predict_proba(self, X):
        return super().predict_proba(_texts(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = True, False
        return tags


def _check(name):
    return getattr(checks, name, None) or pytest.skip("another version of scikit-learn has it")


def _texts(X) -> list[str]:
    return [" ".join(f"{value:.1f}" for value in row) for row in np.asarray(X)]


@pytest.fixture(scope="module")
def fitted() -> TextClassifier:
    return tiny(method="aang", max_steps=2).fit(
        TEXTS, ANIMALS, unlabelled=[f"no. {i}" for i in range(8)]
    )


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_mixin_order",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
    ],
)
def test_checks_without_data(check):
    _check(check)("TextClassifier", tiny())


@pytest.mark.parametrize(
    "check",
    [
        "check_fit_score_takes_y",
        "check_estimators_overwrite_params",
        "check_dont_overwrite_parameters",
        "check_estimators_fit_returns_self",
        "check_estimators_unfitted",
        "check_estimators_pickle",
        "check_fit_check_is_fitted",
        "check_fit_idempotent",
        "check_dict_unchanged",
        "check_pipeline_consistency",
        "check_classifiers_classes",
        "check_classifiers_one_label",
        "check_classifiers_regression_target",
        "check_supervised_y_2d",
        "check_supervised_y_no_nan",
        "check_requires_y_none",
        "check_methods_subset_invariance",
        "check_methods_sample_order_invariance",
    ],
)
def test_checks_on_numbers_written_out(check):
    _check(check)("OnNumbers", OnNumbers(**TINY))


def test_every_form_of_the_same_rows_is_the_same(fitted):
    expected = fitted.predict_proba(TEXTS)
    assert expected.shape == (24, 2)
    np.testing.assert_allclose(expected.sum(1), 1)
    assert fitted.classes_.tolist() == ["cat", "dog"]
    frame = pandas.DataFrame({"message": TEXTS})
    forms = [np.array(TEXTS), np.array(TEXTS, dtype=object), tuple(TEXTS), iter(TEXTS)]
    for form in [*forms, frame["message"], frame, np.array(TEXTS)[:, None]]:
        np.testing.assert_array_equal(fitted.predict_proba(form), expected)
    assert set(fitted.predict(TEXTS)) <= {"cat", "dog"}


def test_the_report_is_that_of_the_run(fitted):
    report = fitted.report_
    assert (report["method"], report["seeds"][0]["train_rows"]) == ("aang", 20)
    assert report["audit"]["splits"] == {"train": 20, "dev": 4}
    assert report["audit"]["labels"]["dev"] == {"cat": 2, "dog": 2}
    assert sum(report["weights"]["objectives"].values()) == pytest.approx(1)


def test_saved_it_answers_the_same_and_plain_transformers_load_it(fitted, tmp_path):
    from transformers import pipeline

    fitted.save(tmp_path / "saved")
    loaded = TextClassifier.load(tmp_path / "saved", device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    assert loaded.get_params() == fitted.get_params()
    assert loaded.report_ == fitted.report_
    said = pipeline("text-classification", str(tmp_path / "saved" / "model"), device="cpu")(TEXTS)
    assert [each["label"] for each in said] == fitted.predict(TEXTS).tolist()
    with pytest.raises(RunError, match="not an empty folder"):
        fitted.save(tmp_path / "saved")
    (tmp_path / "saved" / "estimator.json").write_text("{", "utf-8")
    with pytest.raises(RunError, match="holds no saved estimator"):
        TextClassifier.load(tmp_path / "saved")


def test_a_pickle_stands_alone_and_a_clone_is_unfitted(fitted):
    copied = pickle.loads(pickle.dumps(fitted))
    assert copied.directory_ != fitted.directory_
    np.testing.assert_array_equal(copied.predict(TEXTS), fitted.predict(TEXTS))
    with pytest.raises(NotFittedError):
        clone(fitted).predict(TEXTS)


def test_model_selection_and_pipelines_take_it():
    labels = np.array(ANIMALS) == "cat"
    assert cross_val_score(tiny(), TEXTS, labels, cv=2).shape == (2,)
    lower = FunctionTransformer(partial(map, str.lower))
    search = GridSearchCV(make_pipeline(lower, tiny()), {"textclassifier__lr": [1e-4, 1e-3]}, cv=2)
    best = search.fit(TEXTS, labels).best_estimator_
    assert isinstance(best, Pipeline)
    assert best.predict(TEXTS).dtype == bool
    assert best[-1].lr == search.best_params_["textclassifier__lr"]


def test_pairs_and_a_given_dev_and_a_folder(tmp_path, pages):
    frame = pandas.DataFrame({"question": TEXTS, "answer": TEXTS[::-1]})
    classes = [3, 1] * 12
    model = tiny(out=tmp_path / "runs", random_state=np.int64(7))
    model.fit(frame[8:], classes[8:], validation=(frame[:8], classes[:8]))
    assert model.report_["audit"]["splits"] == {"train": 16, "dev": 8}
    assert model.predict(list(zip(TEXTS, TEXTS[::-1], strict=True))).dtype == int
    assert model.directory_.parent == tmp_path / "runs"
    assert (model.directory_ / "report.html").exists()
    with pytest.raises(ValueError, match="X has the columns text; expected text, text_pair"):
        model.predict(TEXTS)


def test_the_same_seed_gives_the_same_bits_and_equal_texts_stay_together():
    repeated, labels = TEXTS + TEXTS[:6], ANIMALS + ANIMALS[:6]
    first = tiny(random_state=3).fit(repeated, labels)
    again = tiny(random_state=3).fit(repeated, labels)
    np.testing.assert_array_equal(first.predict_proba(TEXTS), again.predict_proba(TEXTS))
    assert first.report_["audit"]["in_train"] == {"dev": 0}


@pytest.mark.parametrize(
    ("X", "y", "error", "said"),
    [
        ("one text", ["a"], ValueError, "is one text; expected a list"),
        (TEXTS, ANIMALS[:-1], ValueError, "has 24 rows, and its y 23 labels"),
        (TEXTS, ["cat"] * 24, ValueError, "holds one class"),
        ([], [], ValueError, "at least one row"),
        (["a", "", None, 3.0], ["x", "x", "y", "y"], TaskError, "row 2: column 'text' is empty"),
        (["a", "b"], ["x", "y"], ValueError, "dev cannot be cut"),
        ([("a", "b", "c")] * 4, list("xyxy"), ValueError, "1 to 2 columns"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_in_words(X, y, error, said):
    with pytest.raises(error, match=said):
        tiny().fit(X, y)


@pytest.mark.parametrize("missing", [None, np.nan, pandas.NA])
def test_missing_values_of_pandas_are_named_by_their_rows(missing):
    for column in (
        pandas.Series([*TEXTS[:4], missing]),
        pandas.Series([*TEXTS[:4], missing], dtype="string"),
    ):
        with pytest.raises(TaskError) as caught:
            tiny().fit(column, ANIMALS[:5])
        assert "X row 5: column 'text' is empty" in str(caught.value)
        assert "--drop-empty" not in str(caught.value)
    with pytest.raises(
        ValueError, match=r"y has no class in 1 rows, the first is row 3;.*unlabelled="
    ):
        tiny().fit(TEXTS[:4], pandas.Series([*ANIMALS[:2], missing, "cat"], dtype=object))


@pytest.mark.parametrize("space", ["td", "few-labels", "setfit"])
def test_the_defaults_are_those_of_the_command(space):
    """Also where the space suggests another method: that of `few-labels` is `static`."""
    command = build_config(None, {"space": (space, "--space")}, (), suggestions(registry_named(())))
    assert dump_config(TextClassifier(space=space)._config()) == dump_config(command)


def test_many_classes_with_blanks_in_their_names_and_a_search_over_spaces():
    names = [f"class no. {i}" for i in range(12)]
    texts = pandas.Series(
        [f"word{i} stands here {j}" for i in range(12) for j in range(4)], dtype="string"
    )
    labels = pandas.Series(pandas.Categorical(np.repeat(names, 4)))
    search = GridSearchCV(tiny(method=None), {"space": ["td", "few-labels"]}, cv=2, refit=True)
    search.fit(texts, labels, unlabelled=pandas.Series(["one more", "and another"]))
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert set(search.predict(texts[:5])) <= set(names)
    assert search.predict_proba(texts[:2]).shape == (2, 12)


def test_settings_that_are_none_are_named():
    with pytest.raises(ConfigError, match="max_stepps"):
        tiny(settings={"training": {"max_stepps": 3}}).fit(TEXTS, ANIMALS)


def test_the_address_of_before_names_the_estimator_too():
    from aang_core.study import estimator

    assert estimator.TextClassifier is TextClassifier
    assert estimator.SAVED == "estimator.json"


def test_a_bar_is_drawn_where_somebody_sees_it(capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    tiny(verbose=2, max_steps=2).fit(TEXTS, ANIMALS)
    told = capsys.readouterr()
    assert "2/2" in told.err
    assert "best dev accuracy" in told.err
    assert "no test split" in told.out or "disk" in told.out
