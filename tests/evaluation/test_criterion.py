"""What the best γ is the best by: the oracle, its record, and the bounds to choose by."""

from __future__ import annotations

import json

import pytest
import torch

from ftc import ClassPartition, InputError
from ftc.calibrators import FixedGamma
from ftc.evaluation.logit_files import SavedLogits
from ftc.evaluation.objectives import oracle_scores
from ftc.evaluation.saved_logits import calibrate_logits
from ftc.evaluation.summary import Measures
from ftc.functional import seen_absent_curve
from ftc.functional.accuracy import CRITERIA
from ftc.results import FILE_NAME, OBJECTIVES, RunRecord
from tests.conftest import random_logits

PARTITION = ClassPartition(9, seen=[0, 2, 4, 6], absent=[1, 5, 7])


def recorded(criterion: str, average: str = "sample", group: str | None = None) -> RunRecord:
    """The record of logits that hardly know absent classes, of one group's samples if one is named."""
    logits, target = random_logits(PARTITION, 300)
    logits[:, list(PARTITION.absent)] -= 2
    if group is not None:
        keep = torch.isin(target, torch.tensor(PARTITION.columns(group)))
        logits, target = logits[keep], target[keep]
    measures = Measures(average=average, criterion=criterion)
    return calibrate_logits(
        "logits", {"eval": SavedLogits(logits, target)}, PARTITION, {"fixed": FixedGamma(0.0)}, measures
    )


@pytest.mark.parametrize("average", ["sample", "class"])
def test_each_oracle_is_the_best_by_its_own_criterion(average):
    records = {criterion: recorded(criterion, average) for criterion in CRITERIA}
    logits, target = random_logits(PARTITION, 300)
    logits[:, list(PARTITION.absent)] -= 2
    curve = seen_absent_curve(logits, target, PARTITION, average)
    oracles = {criterion: record.stages.calibrated["oracle"] for criterion, record in records.items()}
    assert {name: oracle.title for name, oracle in oracles.items()} == {
        "acc_all": "oracle",
        "harmonic": "oracle, harmonic",
        "balanced": "oracle, balanced",
    }
    for criterion, oracle in oracles.items():
        assert oracle.gamma == curve.best(criterion)
        assert all(oracle.metrics[criterion] >= other.metrics[criterion] for other in oracles.values())
        bounds = oracle_scores(
            records[criterion].stages.fine_tuned, records[criterion].stages.calibrated, criterion
        )
        assert bounds == {"oracle_ausuc": curve.ausuc, f"oracle_{criterion}": oracle.metrics[criterion]}
        assert set(bounds) <= set(OBJECTIVES)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_criterion_that_wants_both_groups_has_no_oracle_of_one(criterion):
    assert "oracle" not in recorded(criterion, group="seen").stages.calibrated
    has_oracle = "oracle" in recorded(criterion, group="absent").stages.calibrated
    assert has_oracle == (criterion == "acc_all")


def test_the_record_says_the_criterion(tmp_path):
    record = recorded("harmonic")
    path = record.write(tmp_path)
    assert path.name == FILE_NAME
    assert RunRecord.read(tmp_path).criterion == "harmonic"
    content = json.loads(path.read_text())
    del content["digest"]
    path.write_text(json.dumps({**content, "criterion": "median"}))
    with pytest.raises(InputError, match=r"not a results file \(criterion: input should be 'acc_all'"):
        RunRecord.read(tmp_path)
    # Older records have none.
    del content["criterion"]
    path.write_text(json.dumps(content))
    assert RunRecord.read(tmp_path).criterion == "acc_all"
