"""How far the scores of a healthy line stray: limits for the device, for any distribution of scores.

Let X_(1) <= … <= X_(n) be held-out scores of good parts. If the line's parts are like them (exchangeable), the number of N parts above
X_(k) follows the beta-binomial law BetaBin(N; n + 1 - k, k), whatever the scores' distribution: the rate above X_(k) is
Beta(n + 1 - k, k) (Wilks 1941, section 3), and N draws at that rate are counted. Equal scores only make the count smaller. So the limit is
the smallest count whose tail is below the stated probability, and few held-out images give a wide one by themselves. Likewise below X_(j).

Why: deploy/decisions/0012.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.stats import betabinom

from edge_runtime.errors import CalibrationError
from edge_runtime.model.manifest import Drift

SHARE = 0.1
WINDOW = 200
FALSE_ALARM = 1e-5
_EPS = 1e-9


def drift_limits(scores: npt.NDArray[np.float64], *, window: int = WINDOW, false_alarm: float = FALSE_ALARM) -> Drift | None:
    """What a device may take for healthy; None where so few scores allow no limit at all (fewer than 3 with the defaults).

    On a healthy line the expected share of parts at which a limit is exceeded is at most `false_alarm` for each limit, windows overlapping
    or not. Below, a limit is never less than half the window (its median must fall below X_(j)): held-out scores come from heads that knew
    a little less than the one that ships, so that a healthy line scores a little lower, and what is looked for there is a blind camera.

    Args:
        scores: (n,) raw scores of held-out good images, of the very detector that ships.
        window: parts that are looked at together.
        false_alarm: as above.

    Raises:
        CalibrationError: scores that are not finite.

    >>> limits = drift_limits(np.linspace(1, 2, 200))
    >>> limits.max_above, limits.max_below, limits.window
    (52, 100, 200)
    """
    n = len(scores)
    if not np.isfinite(scores).all():
        raise CalibrationError("drift: some held-out scores are not finite: the detector is broken; fit again")
    if n == 0:
        return None
    k = min(n, math.ceil((1 - SHARE) * (n + 1) - _EPS))
    j = n + 1 - k
    ordered = np.sort(scores)
    # By symmetry the count below X_(j), j = n + 1 - k, has the law of the count above X_(k).
    # Summed from the far end, where the numbers are small: 1 - cdf would lose them.
    over = betabinom.pmf(np.arange(window + 1), window, j, k)[::-1].cumsum()[::-1][1:]  # (window,): P(count > c), c = 0 …
    allowed = np.flatnonzero(over <= false_alarm)
    if len(allowed) == 0:
        return None
    most = int(allowed[0])
    return Drift(
        low=float(ordered[j - 1]),
        median=float(np.median(scores)),
        high=float(ordered[k - 1]),
        share=j / (n + 1),
        window=window,
        max_above=most,
        max_below=max(most, window // 2),
        false_alarm=false_alarm,
        n_good=n,
    )
