"""The table: what each torch function does to channel identities."""

from collections.abc import Callable
from typing import Any

from merge_core.channels.call import Call
from merge_core.channels.rules_attention import ATTENTION_RULES
from merge_core.channels.rules_layers import LAYER_RULES
from merge_core.channels.rules_moving import MOVING_RULES
from merge_core.channels.rules_values import VALUE_RULES

RULES: dict[str, Callable[[Call], Any]] = {
    **VALUE_RULES,
    **MOVING_RULES,
    **LAYER_RULES,
    **ATTENTION_RULES,
}
