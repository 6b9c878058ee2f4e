"""How stages and metrics are called in print."""

STAGES = {
    "source": "source",
    "fine_tuned": "fine-tuned",
    "alg": "ALG",
    "anchored": "anchored",
    "prior_matched": "prior-matched",
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


def stage_name(key: str) -> str:
    """A stage's printed name; calibrators of the user's own keep theirs."""
    return STAGES.get(key, key)
