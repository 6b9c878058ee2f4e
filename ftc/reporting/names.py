"""How stages and metrics are called in print."""

STAGES = {
    "source": "source",
    "fine_tuned": "fine-tuned",
    "alg": "ALG",
    "alg_oracle": "ALG on test (leak)",
    "anchored": "anchored",
    "misroute": "misroute",
    "mixed_anchor": "mixed anchor",
    "symmetric": "symmetric misroute",
    "pcv": "PCV",
    "pcv_best": "PCV, best overall",
    "pcv_balanced": "PCV, balanced",
    "pcv_half": "PCV, balanced, half as long",
    "pcv_third": "PCV, balanced, a third as long",
    "pcv_quarter": "PCV, balanced, a quarter as long",
    "interpolated": "interpolated",
    "interpolated_mixed": "interpolated ¾, mixed anchor",
    "interpolated_unlabelled": "interpolated, expected accuracy",
    "prior_matched": "prior-matched",
    "prior_estimated": "prior-matched, estimated",
    "margin_mixture": "margin mixture",
    "expected_accuracy": "expected accuracy",
    "fixed": "fixed γ",
    "val_oracle": "oracle on validation labels",
    "oracle": "oracle",
}

COLUMNS = {
    "acc_all": "Y/Y",
    "acc_seen": "S/Y",
    "acc_absent": "U/Y",
    "acc_seen_within": "S/S",
    "acc_absent_within": "U/U",
    "harmonic": "H",
    "ausuc": "AUSUC",
    "ncm_acc_all": "NCM Y/Y",
}
INTERVAL_COLUMNS = {
    name: COLUMNS[name] for name in ("acc_all", "acc_seen", "acc_absent", "harmonic", "ausuc")
}

LANE_TITLES = {
    "seen_only": "calibrated on labelled seen target images",
    "unlabelled": "calibrated with unlabelled target images",
}


def stage_name(key: str) -> str:
    """A stage's printed name; calibrators of the user's own keep theirs."""
    return STAGES.get(key, key)
