"""Where positions start, and how long a sequence may be.

RoBERTa's positions count the tokens that are not padding, starting at ``pad_token_id + 1``; padding itself has the
position ``pad_token_id`` (fairseq's ``make_positions``). With the published ``pad_token_id`` 1 the first token has
position 2, so a table of 514 rows serves 512 tokens. The count follows the ids and never the attention mask: a padding
id that is attended to keeps the padding position, a real token that is masked keeps its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xlmr_core.config import XLMRobertaConfig

__all__ = ["first_position", "max_tokens"]


def first_position(config: XLMRobertaConfig) -> int:
    """The position of the first token that is not padding."""
    return config.pad_token_id + 1


def max_tokens(config: XLMRobertaConfig) -> int:
    """The longest sequence that has a position for every token, special tokens included."""
    return config.max_position_embeddings - first_position(config)
