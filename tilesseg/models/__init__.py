"""Networks: their contract, their bundle, the runtimes that compute them, and our U-Net."""

from __future__ import annotations

from tilesseg.models.bundle import Bundle as Bundle
from tilesseg.models.bundle import KnownModel as KnownModel
from tilesseg.models.bundle import find_bundle as find_bundle
from tilesseg.models.bundle import list_models as list_models
from tilesseg.models.bundle import verify_weights as verify_weights
from tilesseg.models.load import ENGINES as ENGINES
from tilesseg.models.load import Model as Model
from tilesseg.models.load import choose_for as choose_for
from tilesseg.models.load import load_model as load_model
