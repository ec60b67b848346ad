"""`python -m tests.bench_laws`: what the rule of thresholds does by itself, on scores of which everything is known (training/README.md).

Samples are drawn from known laws, the threshold is set by them as ever, and the share of the law beyond it is the true false-reject rate:
no detector, no test split, no labels. What a benchmark with images shows beyond this comes from these.
"""

import numpy as np
from scipy import stats

from training.calibrate.rules import Rule, Scores, apply_rule

COUNTS = (40, 80, 160, 400)
RATES = (0.01, 0.03)
DRAWS = 200
LAWS = {
    "log-normal, 0.2": stats.lognorm(0.2, scale=10),
    "log-normal, 0.4": stats.lognorm(0.4, scale=10),
    "gamma, shape 6": stats.gamma(6),
    "normal": stats.norm(10, 1.5),
    "Weibull, shape 1.5, from 5": stats.weibull_min(1.5, scale=5, loc=5),
}


def multiple(law: stats.rv_continuous, n: int, rate: float, draws: int = DRAWS) -> float:
    """Mean true false-reject rate of thresholds set by `n` scores, as a multiple of the stated one."""
    rule, found = Rule(kind="false_reject_rate", target=rate), []
    for draw in range(draws):
        scores = law.rvs(n, random_state=np.random.default_rng([draw, n]))
        found.append(law.sf(apply_rule(rule, Scores(scores, scores, scores))[0].value))
    return float(np.mean(found)) / rate


def main() -> None:
    """Print the table, as Markdown."""
    print("| scores are | " + " | ".join(f"{n} at {100 * rate:g} %" for n in COUNTS for rate in RATES) + " |")
    print("|---" * (1 + len(COUNTS) * len(RATES)) + "|")
    everything = []
    for name, law in LAWS.items():
        row = [multiple(law, n, rate) for n in COUNTS for rate in RATES]
        everything += row
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |", flush=True)
    print(f"\nTrue false-reject rate as a multiple of the stated one, means of {DRAWS} draws; over all {np.mean(everything):.2f}.")


if __name__ == "__main__":
    main()
