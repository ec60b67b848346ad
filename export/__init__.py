"""From a fitted detector to a bundle that a device can trust: `lineside-export`."""

import edge_runtime  # noqa: F401  # before any module here loads OpenVINO: it keeps that from reporting to its makers
import training  # noqa: F401  # before any module here loads torch: it tells OpenMP not to spin
