"""A station file's signals: what can be no map of tags is refused with its key."""

import pytest

from edge_runtime.config.files import PlcInputs, PlcOutputs, PulseConfig, TagConfig
from edge_runtime.errors import ConfigError
from edge_runtime.plc.modbus import ModbusTriggerConfig
from edge_runtime.plc.signals import tags_of

TRIGGER = PlcInputs(trigger="coil:0")
TEXT = TagConfig(address="holding:0", type="text", length=30)
BAD: list[tuple[dict[str, object], str]] = [
    ({"outputs": PlcOutputs(ready="coil:1")}, r"trigger\.outputs: expected at least accept or reject"),
    ({"outputs": PlcOutputs(accept="coil:1")}, r"expected result_valid beside accept"),
    ({"inputs": PlcInputs(trigger=TagConfig(address="holding:0", type="uint16"))}, r'inputs\.trigger: expected type "bool"'),
    ({"inputs": PlcInputs(trigger="coil:0", recipe=TagConfig(address="holding:0", type="float32"))}, "inputs.recipe: expected a whole"),
    ({"inputs": PlcInputs(trigger="coil:0", part_id=TagConfig(address="coil:5", type="bool"))}, "inputs.part_id: expected a number"),
    ({"inputs": TRIGGER, "pulse": PulseConfig()}, r"trigger\.pulse: expected delay_ms or encoder_counts, found neither"),
    ({"inputs": TRIGGER, "pulse": PulseConfig(encoder_counts=3)}, r"expected inputs\.encoder"),
    (
        {
            "inputs": PlcInputs(trigger="coil:0", encoder=TagConfig(address="holding:4", scale=10.0)),
            "pulse": PulseConfig(encoder_counts=3),
        },
        r"trigger\.inputs\.encoder: expected no scale, found 10",
    ),
    (
        {
            "inputs": PlcInputs(trigger="coil:0", encoder=TagConfig(address="holding:4", type="int16")),
            "pulse": PulseConfig(encoder_counts=32_768),
        },
        r"trigger\.pulse\.encoder_counts: expected less than 32768",
    ),
    (
        {
            "inputs": PlcInputs(trigger="coil:0", part_id=TEXT),
            "outputs": PlcOutputs(accept="coil:2", reject="coil:3", result_part_id="holding:50"),
        },
        r'outputs\.result_part_id: expected a text, as trigger\.inputs\.part_id is one, found "uint32"',
    ),
    (
        {
            "inputs": PlcInputs(trigger="coil:0", part_id=TEXT),
            "outputs": PlcOutputs(accept="coil:2", reject="coil:3", result_part_id=TagConfig(address="holding:50", type="text")),
        },
        r"outputs\.result_part_id: expected a length of at least 30, as trigger\.inputs\.part_id has, found 16",
    ),
    ({"pulse": PulseConfig(delay_ms=3)}, r"trigger\.inputs\.acknowledge"),
]


@pytest.mark.parametrize(("more", "message"), BAD, ids=[m for _, m in BAD])
def test_a_mapping_that_cannot_work_is_refused_with_its_key(more: dict[str, object], message: str) -> None:
    works = {"inputs": PlcInputs(trigger="coil:0", acknowledge="coil:1"), "outputs": PlcOutputs(accept="coil:2", result_valid="coil:3")}
    tags_of(ModbusTriggerConfig(**works))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        tags_of(ModbusTriggerConfig(**(works | more)))  # type: ignore[arg-type]
