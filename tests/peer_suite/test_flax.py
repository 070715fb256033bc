"""Flax's models in the shared tests of transformers."""

from __future__ import annotations

import xlmr_flax
from tests.peer_suite.layer import OurCase, Tester, give_mappings, heads_of, open_tests

FAMILIES = {xlmr_flax.XLMRobertaConfig: "FlaxXLMRoberta", xlmr_flax.XLMRobertaXLConfig: "FlaxXLMRobertaXL"}

models = open_tests("test_modeling_flax_common")
models.FlaxAutoModel = xlmr_flax.FlaxAutoModel
models.FlaxAutoModelForSequenceClassification = xlmr_flax.FlaxAutoModelForSequenceClassification
give_mappings(models, xlmr_flax, FAMILIES)


class TestModels(models.FlaxModelTesterMixin, OurCase):
    all_model_classes = heads_of(xlmr_flax, "FlaxXLMRoberta")
    test_head_masking = True

    def setUp(self) -> None:
        self.model_tester = Tester(xlmr_flax.XLMRobertaConfig, models.ids_tensor, models.random_attention_mask)
