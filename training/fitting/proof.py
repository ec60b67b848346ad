"""Whether what a fit asks for can be had, before any image is read: the backbone's name, its weights, the method's parameters."""

from training.core.backbones import Backbone, BackboneSpec, build_backbone, refuse_unknown, resolve_name
from training.fitting.options import FitOptions, resolve
from training.methods.distil import load_teacher
from training.methods.efficientad import EfficientadNetwork
from training.methods.table import make_head, make_network

_SIDE = 256
"""Side of the pictures that parameters are tried on; what only another size would refuse is told later."""


def prove(options: FitOptions) -> None:
    """Raises ConfigError for a method, parameter or backbone that cannot be, DataError for weights that cannot be read or do not fit."""
    strides, values = resolve(options)
    name = resolve_name(options.backbone)
    refuse_unknown(name)
    if not options.overrides and options.weights is None:
        return
    spec = BackboneSpec(name, tuple(sorted(strides)))
    network = make_network(options.method, values, spec, (_SIDE, _SIDE))
    if options.overrides and network is None:
        make_head(options.method, values, Backbone(spec).level_shapes(_SIDE, _SIDE))
    if options.weights is None:
        return
    if isinstance(network, EfficientadNetwork):
        load_teacher(options.weights, network.spec)
    elif options.method != "autoencoder":  # it takes none, and says so
        build_backbone(name, strides, options.weights)
