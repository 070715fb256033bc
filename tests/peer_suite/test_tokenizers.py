"""Both tokenizers in the shared tests of transformers."""

from __future__ import annotations

import tempfile

from tests.peer_suite.layer import ARCHIVES, OurCase, in_this_process, open_tests
from xlmr_core.tokenization import AddedToken, PreTrainedTokenizerBase, XLMRobertaTokenizer, XLMRobertaTokenizerFast

# A small model in place of the one that the file of XLM-R's own tests trains on.
VOCABULARY = ARCHIVES / "sentencepiece-0.2.0" / "test" / "test_model.model"

tokenizers = open_tests("test_tokenization_common")
tokenizers.PreTrainedTokenizer = XLMRobertaTokenizer
tokenizers.PreTrainedTokenizerFast = XLMRobertaTokenizerFast
tokenizers.PreTrainedTokenizerBase = PreTrainedTokenizerBase
tokenizers.AddedToken = AddedToken
tokenizers.run_test_in_subprocess = in_this_process


class TestTokenizers(tokenizers.TokenizerTesterMixin, OurCase):
    tokenizer_class = XLMRobertaTokenizer
    rust_tokenizer_class = XLMRobertaTokenizerFast
    test_sentencepiece = True

    @classmethod
    def setUpClass(cls) -> None:
        cls.from_pretrained_id = tempfile.mkdtemp(prefix="xlmr-peer-suite-")
        XLMRobertaTokenizer(str(VOCABULARY)).save_pretrained(cls.from_pretrained_id)
        super().setUpClass()
        XLMRobertaTokenizer(str(VOCABULARY)).save_pretrained(cls.tmpdirname)
