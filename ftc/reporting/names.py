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
    "interpolated": "interpolated",
    "prior_matched": "prior-matched",
    "margin_mixture": "margin mixture",
    "expected_accuracy": "expected accuracy",
    "fixed": "fixed γ",
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
