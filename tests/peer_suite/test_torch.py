"""PyTorch's models, and configurations, in the shared tests of transformers."""

from __future__ import annotations

import pytest

import xlmr_torch
from tests.peer_suite.layer import OurCase, Tester, give_mappings, heads_of, open_tests
from xlmr_torch.pretrained import PreTrainedModel

FAMILIES = {xlmr_torch.XLMRobertaConfig: "XLMRoberta", xlmr_torch.XLMRobertaXLConfig: "XLMRobertaXL"}

models = open_tests("test_modeling_common")
models.PreTrainedModel = PreTrainedModel
models.PretrainedConfig = xlmr_torch.XLMRobertaConfig
models.AutoModel = xlmr_torch.AutoModel
models.AutoModelForSequenceClassification = xlmr_torch.AutoModelForSequenceClassification
give_mappings(models, xlmr_torch, FAMILIES)

configurations = open_tests("test_configuration_common")
OF_CONFIGURATIONS = [name for name in vars(configurations.ConfigTester) if name.startswith(("create_", "check_"))]


class TestModels(models.ModelTesterMixin, OurCase):
    config_class = xlmr_torch.XLMRobertaConfig
    all_model_classes = heads_of(xlmr_torch, "XLMRoberta")

    def setUp(self) -> None:
        self.model_tester = Tester(self.config_class, models.ids_tensor, models.random_attention_mask)


class ConfigurationCase(OurCase):
    """What the shared file asks of the test that it serves."""

    model_tester = Tester(xlmr_torch.XLMRobertaConfig, None, None)


@pytest.mark.parametrize("name", OF_CONFIGURATIONS)
@pytest.mark.parametrize("config_class", FAMILIES, ids=lambda config_class: config_class.__name__)
def test_configuration(name: str, config_class: type) -> None:
    # A multiple of both families' default number of heads.
    tester = configurations.ConfigTester(ConfigurationCase(), config_class=config_class, hidden_size=96)
    getattr(tester, name)()
