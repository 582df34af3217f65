"""Intervals, tests and corrections of a comparison, against what is known of them."""

import numpy as np
import pytest
from scipy.stats import kstest, permutation_test

from lit_fm.compare import statistics
from lit_fm.compare.counts import Counts, counts
from lit_fm.evaluate.metrics import METRICS, measure

TEXTS = ["a cat", "the dog ran", "a bird sat here", "call it 12", "B-PER I-PER O", "O B-LOC O", "the dog", "yes"]
RIGHT = [["a cat"], ["the dog ran away", "the dog ran"], ["a bird sat there"], ["it was 12"], ["B-PER I-PER O"],
         ["B-LOC O O"], ["the dog"], ["no"]]  # fmt: skip
ROWS = [{"prediction": text, "references": right} for text, right in zip(TEXTS, RIGHT, strict=True)]


def rows(values):
    return Counts(
        np.stack([np.asarray(values, float), np.ones(len(values))], 1), counts("exact_match", ROWS).value, True
    )


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_the_interval_holds_the_truth_at_the_stated_rate(share):
    """1,500 test sets of 200 examples, all with the same draws, which leaves each set's interval as it is."""
    sets = (np.random.default_rng(1).random((200, 1500)) < share).astype(float)
    means = np.concatenate([drawn @ sets / 200 for drawn in statistics.times(200, 1000)])
    low, high = statistics.interval(means)
    covered = ((low <= share) & (share <= high)).mean()
    assert 0.93 <= covered <= 0.97


def test_resamples_are_the_same_for_all_methods_and_every_time():
    one, other = ([*statistics.times(50, 700)] for _ in range(2))
    assert [len(block) for block in one] == [500, 200]
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert (np.concatenate(one).sum(1) == 50).all()


@pytest.mark.parametrize("metric", ["exact_match", "rouge1", "f1", "normalised_exact_match", "number", "tool_call",
                                    "macro_f1", "entity_f1", "bleu", "chrf", "accuracy"])  # fmt: skip
def test_a_metric_of_resampled_sums_is_the_metric_of_the_resampled_texts(metric):
    measured, name = counts(metric, ROWS), {"rouge1": "rouge", "normalised_exact_match": "f1"}.get(metric, metric)
    for times in [np.ones(8), *np.random.default_rng(0).multinomial(8, [1 / 8] * 8, size=12)]:
        taken = np.repeat(np.arange(8), times.astype(int))
        expected = measure([name], [TEXTS[i] for i in taken], [RIGHT[i] for i in taken])[metric]
        assert measured.value(times @ measured.each) == pytest.approx(expected, abs=1e-6)


def test_a_metric_that_nothing_is_known_of_is_measured_anew(monkeypatch):
    monkeypatch.setitem(METRICS, "length", lambda texts, right: {"length": float(max(map(len, texts)))})
    measured = counts("length", ROWS)
    assert not measured.mean
    sums = np.eye(8)[[0, 2]] @ measured.each
    assert measured.value(sums).tolist() == [len(TEXTS[0]), len(TEXTS[2])]


def test_choices_by_likelihood_count_only_examples_that_have_a_right_one():
    measured = counts("choice_accuracy", [{"choice_accuracy": True}, {"choice_accuracy": False}, {}])
    assert measured.value(measured.each.sum(0)) == 0.5
    assert not measured.mean


@pytest.mark.parametrize("seed", range(4))
def test_the_permutation_test_is_scipys_where_all_signs_are_tried(seed):
    random = np.random.default_rng(seed)
    one, other = random.integers(0, 3, (2, 10)).astype(float)
    expected = permutation_test(
        (one, other), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", vectorized=True, n_resamples=np.inf
    ).pvalue  # fmt: skip
    assert statistics.permutation_test(one - other) == pytest.approx(expected)


def test_drawn_signs_agree_with_the_normal_law_for_many_examples():
    differences = np.random.default_rng(3).normal(0.1, 1, 400)
    z = differences.sum() / np.sqrt((differences**2).sum())
    from scipy.stats import norm

    assert statistics.permutation_test(differences) == pytest.approx(2 * norm.sf(abs(z)), abs=0.015)
    assert 0 < statistics.permutation_test(np.ones(300)) < 0.001
    assert statistics.permutation_test(np.zeros(9)) == 1


def test_p_values_are_uniform_where_methods_do_not_differ():
    random = np.random.default_rng(5)
    found = [statistics.permutation_test(random.normal(size=40), flips=500) for _ in range(600)]
    assert kstest(found, "uniform").pvalue > 0.01


def test_the_bootstrap_test_of_a_mean_agrees_with_the_permutation_test():
    random = np.random.default_rng(9)
    one, other = (random.random((2, 300)) < np.array([[0.6], [0.5]])).astype(float)
    draws = [statistics.resampled([[rows(values)]]) for values in (one, other)]
    by_bootstrap = statistics.bootstrap_test(one.mean() - other.mean(), draws[0] - draws[1])
    assert by_bootstrap == pytest.approx(statistics.compare([[rows(one)]], [[rows(other)]], tuple(draws)), abs=0.02)


def test_seeds_and_tasks_are_averaged():
    method = [[rows([1, 1, 0, 0]), rows([1, 0])], [rows([1, 0, 0, 0]), rows([1, 1])]]
    assert statistics.point(method) == pytest.approx((0.5 + 0.25) / 4 + (0.5 + 1) / 4)
    draws = statistics.resampled(method, 3000)
    assert draws.mean() == pytest.approx(statistics.point(method), abs=0.02)
    assert statistics.spread([0.5]) is None
    assert statistics.spread([1, 2, 3]) == 1


def test_holm_is_the_case_worked_by_hand():
    """0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.04 x 1, none below the one before."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert statistics.holm([0.9, 0.01, 0.5]) == pytest.approx([1.0, 0.03, 1.0])
    assert statistics.holm([]) == []
