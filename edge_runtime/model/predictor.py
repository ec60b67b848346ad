"""OpenVINO on one named device: open a bundle, prove it with its golden samples, Frame -> Prediction.

Why: deploy/decisions/0004.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import openvino as ov

from edge_runtime.errors import BundleError, DataError, DeviceError, FrameError, GoldenMismatch
from edge_runtime.images.read import read_image, read_mask
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.manifest import Manifest, most_px_of
from edge_runtime.model.preprocess import Preprocessor
from edge_runtime.protocols import Predictor
from edge_runtime.records import Frame, Image, Prediction

log = logging.getLogger(__name__)

WARM_UP_RUNS = 3
"""The first inferences allocate memory and are several times slower."""

_FLOOR = 0.1
"""Share of the threshold: a golden value below it is compared as if it were that large. A difference so far down cannot move a verdict
(deploy/decisions/0008)."""

_VIRTUAL = ("AUTO", "MULTI", "HETERO", "BATCH")


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """One golden sample, run again on this device."""

    image: str
    expected_score: float
    score: float
    expected_peak: float
    peak: float
    allowed: float
    """Difference that passes, relative to the expected value, or to a tenth of the threshold where that is larger."""
    difference: float
    """The larger of the two relative differences."""

    @property
    def ok(self) -> bool:
        """False for NaN as well."""
        return self.difference <= self.allowed


class OpenvinoPredictor(Predictor):
    """Scores frames with a bundle's model. Use it as a context manager: the model is compiled and warmed up on entry."""

    device_used: str = ""
    """What OpenVINO says it executes on (EXECUTION_DEVICES), read back after compiling."""
    threads_used: int = 0
    """Inference threads on the CPU, read back as well; 0 on other devices."""

    def __init__(
        self, bundle: ModelBundle, device: str | list[str] = "CPU", threads: int = 0, roi: tuple[int, int, int, int] | None = None
    ) -> None:
        """Prepare; nothing is compiled yet.

        Args:
            bundle: verified and open.
            device: CPU, GPU, GPU.1, NPU …, or a list in order of preference.
            threads: inference threads on the CPU; 0 leaves it to OpenVINO, which keeps to the CPUs that this process may use.
            roi: (x, y, width, height) in frame pixels, replaces the bundle's region.

        Raises:
            ConfigError: the region does not suit the bundle.
        """
        self.bundle = bundle
        self._devices = [device] if isinstance(device, str) else list(device)
        self._threads = threads
        spec = bundle.manifest.input
        try:
            mask = read_mask(bundle.directory / spec.ignore_mask) if spec.ignore_mask else None
        except DataError as e:
            raise BundleError(f"bundle {bundle.directory}: {e}") from e
        self.preprocessor = Preprocessor(spec, mask, roi)
        # Golden samples are frames of the training camera: they keep the bundle's own region.
        self._golden_preprocessor = Preprocessor(spec, mask) if roi is not None else self.preprocessor

    def __enter__(self) -> Self:
        """Compile on the first device of the list that is there, and warm up.

        Raises:
            DeviceError: none of the devices is there or can run the model.
            BundleError: the model is unreadable or is not what its manifest says.
        """
        core = ov.Core()
        try:
            model = core.read_model(self.bundle.model_xml)
        except RuntimeError as e:
            raise BundleError(f"{self.bundle.model_xml}: expected an OpenVINO model, could not read it: {_reason(e)}") from e
        _check_model(model, self.bundle.manifest, str(self.bundle.model_xml))
        compiled = self._compile(core, model)
        self.device_used = ",".join(compiled.get_property("EXECUTION_DEVICES"))
        self.threads_used = compiled.get_property("INFERENCE_NUM_THREADS") if self.device_used == "CPU" else 0
        # Of tiles, twice as many as run at once, so that none of the device's streams waits for the next one.
        count = 1 if self.preprocessor.views == 1 else 2 * compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._requests = [compiled.create_infer_request() for _ in range(count)]
        for _ in range(-(-WARM_UP_RUNS // self.preprocessor.views)):
            self.predict(self.blank())
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._requests = []

    def predict(self, frame: Frame) -> Prediction:
        """Raw score and map of one frame. Raises FrameError for a frame of another kind, DeviceError when inference fails.

        Not for two threads at once: the inference requests are used again.
        """
        return self._run(frame.image, self.preprocessor)

    def blank(self) -> Frame:
        """A black frame of the kind that the model takes, for warming up."""
        spec = self.bundle.manifest.input
        roi = self.preprocessor.roi
        w, h = spec.frame_wh or (spec.width, spec.height)
        if roi is not None and (roi[0] + roi[2] > w or roi[1] + roi[3] > h or spec.frame_wh is None):
            # The recipe moved the region, so the frame's size is unknown: the smallest that holds the region will do.
            w, h = roi[0] + roi[2], roi[1] + roi[3]
        image = np.zeros((h, w) if spec.channels == 1 else (h, w, spec.channels), np.uint8 if spec.bits == 8 else np.uint16)
        return Frame(seq=0, captured_ns=time.monotonic_ns(), source="blank", image=image)

    def run_golden(self, tolerance_scale: float = 1.0, before_each: Callable[[], None] = lambda: None) -> list[GoldenResult]:
        """Score all of the bundle's golden samples and compare with the recorded values. `before_each`: called before each of them.

        Raises:
            GoldenMismatch: a score or a map's peak differs by more than the manifest's tolerance times `tolerance_scale`, relative to
                the recorded value or to a tenth of its threshold, whichever is larger.
            BundleError: a golden sample is no readable image.
        """
        manifest = self.bundle.manifest
        allowed = manifest.golden_tolerance * tolerance_scale
        results = []
        for golden in manifest.golden:
            try:
                image = read_image(self.bundle.directory / golden.image, most_px_of([manifest.input]))
                before_each()
                found = self._run(image, self._golden_preprocessor)
            except (DataError, FrameError) as e:
                raise BundleError(f"bundle {self.bundle.directory}: golden sample {golden.image}: {e}; build it again") from e
            peak = float(found.score_map.max())
            stated = manifest.threshold
            differences = (
                _relative(found.score, golden.score, stated.value),
                _relative(peak, golden.map_peak, stated.map_value),
            )
            difference = math.nan if any(map(math.isnan, differences)) else max(differences)
            results.append(GoldenResult(golden.image, golden.score, found.score, golden.map_peak, peak, allowed, difference))
        wrong = [r for r in results if not r.ok]
        if wrong:
            r = wrong[0]
            raise GoldenMismatch(
                f"bundle {manifest.name} {manifest.version} on {self.device_used}: {len(wrong)} of {len(results)} golden samples differ: "
                f"{r.image} expected score {r.expected_score:.6g} and map peak {r.expected_peak:.6g}, found {r.score:.6g} and {r.peak:.6g} "
                f"(relative difference {r.difference:.2g}, allowed {r.allowed:.2g}). Do not run this bundle on this device; "
                "build it again here, or raise golden_tolerance_scale in the station file if this device is known to round differently"
            )
        return results

    def infer(self, pictures: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(views, height, width, 3) uint8, as the preprocessor splits a frame -> raw scores (views,) and maps (views, h, w).

        The graph takes one picture. Those of a tiled frame run side by side, each on a core of its own: a third less CPU time a tile
        than one after the other, where a graph for a batch of four saves a sixth. Raises DeviceError when inference fails.
        """
        if not self._requests:
            raise DeviceError("the predictor is not open: use it as a context manager")
        try:
            if len(self._requests) == 1:
                self._requests[0].infer({0: pictures}, share_inputs=True)
                return _copy(self._requests[0])
            return self._side_by_side(pictures)
        except RuntimeError as e:
            raise DeviceError(f"inference failed on {self.device_used}: {_reason(e)}") from e

    def _side_by_side(self, pictures: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        # Not ov.AsyncInferQueue: after one failed inference it fails for ever.
        count, n = len(pictures), len(self._requests)
        found = []
        try:
            for i in range(count + n):
                request = self._requests[i % n]
                if 0 <= i - n < count:
                    request.wait()
                    found.append(_copy(request))
                if i < count:
                    request.start_async({0: pictures[i : i + 1]}, share_inputs=True)
        finally:
            for request in self._requests:  # after a failure the others still read the pictures
                with contextlib.suppress(RuntimeError):
                    request.wait()
        return np.concatenate([scores for scores, _ in found]), np.concatenate([maps for _, maps in found])

    def _run(self, image: Image, preprocessor: Preprocessor) -> Prediction:
        score, score_map = preprocessor.merge(*self.infer(preprocessor.split(image)))
        score_map.flags.writeable = False
        return Prediction(score, score_map, preprocessor.grid_to_frame(image, (score_map.shape[0], score_map.shape[1])))

    _requests: Sequence[Any] = ()

    def _compile(self, core: Any, model: Any) -> Any:
        failures: list[str] = []
        for device in self._devices:
            problem = _why_not(core, device)
            if problem is None:
                try:
                    compiled = core.compile_model(model, device, _properties(device, self._threads, self.preprocessor.views))
                except RuntimeError as e:
                    problem = f"it is there but cannot run the model: {_reason(e)}"
                else:
                    for failed in failures:
                        log.warning("device %s; using %s instead", failed, device)
                    return compiled
            failures.append(f"{device}: {problem}")
        present = ", ".join(core.available_devices) or "none"
        raise DeviceError(
            f"inference device {'; '.join(failures)}. Present here: {present}. Install the device's driver, or list one that is present "
            '(device = ["GPU", "CPU"] prefers the first)'
        )


def _why_not(core: Any, device: str) -> str | None:
    name = device.upper()
    if name.startswith(_VIRTUAL):
        return "chooses a device by itself and falls back silently; name the device or list several in order of preference"
    present = core.available_devices
    if device in present or any(p.split(".")[0] == device for p in present):
        return None
    return "not found on this machine"


def _copy(request: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Score (1,) and map (1, h, w) of one picture; copies, as the tensors are used again."""
    return request.get_tensor("score").data.astype(np.float32), request.get_tensor("map").data[0].astype(np.float32)


def _properties(device: str, threads: int, views: int) -> dict[str, Any]:
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY" if views == 1 else "THROUGHPUT"}
    if not device.startswith("NPU"):  # an NPU has one precision of its own and refuses to be asked
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    if device == "CPU":
        if views == 1:
            properties["NUM_STREAMS"] = 1
        if threads > 0:
            properties["INFERENCE_NUM_THREADS"] = threads
    return properties


def _check_model(model: Any, manifest: Manifest, where: str) -> None:
    """The model against its manifest. Raises BundleError naming both sides."""
    spec, out = manifest.input, manifest.output
    wanted = {
        "input": ([1, spec.height, spec.width, 3], "u8"),
        "score": ([1], "f32"),
        "map": ([1, 1, out.map_height, out.map_width], "f32"),
    }
    if len(model.inputs) != 1:
        raise BundleError(f"{where}: expected a model with one input, found {len(model.inputs)}; build the bundle again")
    ports = {name: port for port in model.outputs for name in port.get_names()}
    missing = [name for name in ("score", "map") if name not in ports]
    if missing:
        raise BundleError(f"{where}: expected outputs named score and map, found {sorted(ports) or 'none'}; build the bundle again")
    ports["input"] = model.inputs[0]
    for name, (shape, kind) in wanted.items():
        port = ports[name]
        found = (list(port.get_shape()) if port.get_partial_shape().is_static else None, port.get_element_type().get_type_name())
        if found != (shape, kind):
            seen = f"{port.get_partial_shape()} {found[1]}"
            raise BundleError(f"{where}: {name}: the manifest says {shape} {kind}, the model has {seen}; build the bundle again")


def _relative(found: float, expected: float, threshold: float) -> float:
    """NaN for a value that is no number."""
    if not math.isfinite(found):
        return math.nan
    return abs(found - expected) / max(abs(expected), _FLOOR * threshold)


def _reason(e: BaseException) -> str:
    """OpenVINO's messages are a stack of C++ source lines with the reason in the last one."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[-1] if lines else type(e).__name__
