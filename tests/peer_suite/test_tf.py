"""Keras' models in the shared tests of transformers."""

from __future__ import annotations

import keras

import xlmr_tf
from tests.peer_suite.layer import OurCase, Tester, give_mappings, heads_of, open_tests

FAMILIES = {xlmr_tf.XLMRobertaConfig: "TFXLMRoberta", xlmr_tf.XLMRobertaXLConfig: "TFXLMRobertaXL"}

models = open_tests("test_modeling_tf_common")
models.keras = keras
models.TFAutoModel = xlmr_tf.TFAutoModel
models.TFAutoModelForSequenceClassification = xlmr_tf.TFAutoModelForSequenceClassification
give_mappings(models, xlmr_tf, FAMILIES)


class TestModels(models.TFModelTesterMixin, OurCase):
    all_model_classes = heads_of(xlmr_tf, "TFXLMRoberta")
    test_onnx = False

    def setUp(self) -> None:
        self.model_tester = Tester(xlmr_tf.XLMRobertaConfig, models.ids_tensor, models.random_attention_mask)
