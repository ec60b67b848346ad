"""What is said of a model that is refused fits what is wrong with it."""

import numpy as np

from edge_runtime.model.manifest import Metrics
from export.build.accept import refusal
from training.judging.acceptance import Criteria, judge_acceptance
from training.judging.telling import Told


def test_a_refusal_offers_what_fits_its_cause() -> None:
    metrics = {"int8": Metrics(n_good=32, n_bad=10, threshold=30.5), "fp32": Metrics(n_good=32, n_bad=10, threshold=30.5)}
    found = judge_acceptance(Criteria(max_rejected=0.02), np.arange(32.0), np.empty(0), 28.5, "none")
    plain, odd = (str(refusal(found, None, "int8", metrics, apart)) for apart in (0, 16))
    assert "--keep-odd" not in plain and "calibrate RUN --gap" in plain
    assert "Put the threshold between" in odd and "learn the 16 images that were held for bad, if they are good (--keep-odd)" in odd


def test_no_threshold_is_advised_where_a_kind_scores_like_good_parts() -> None:
    metrics = {"fp32": Metrics(n_good=32, n_bad=10, threshold=30.5)}
    found = judge_acceptance(Criteria(max_missed=0.05), np.arange(32.0), np.arange(10.0), 30.5, "real")
    told = Told("test split", 30.5, 0, 32, 10, 10, (("chip", 10, 10),), blind=(("chip", 0.5),))
    said = str(refusal(found, told, "fp32", metrics, 0))
    assert "--gap" not in said and "no threshold tells chip (AUROC 0.50)" in said and ". Try another method" in said
