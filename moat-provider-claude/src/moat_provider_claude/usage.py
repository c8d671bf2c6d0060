"""What answers of the Messages API say of tokens, and what these cost: list prices, so that costs are estimates.

Anthropic bills what it bills: batches, other regions, long contexts and contracts differ. They are those of early 2026,
as in https://docs.claude.com/en/docs/about-claude/pricing; a model that is not here is shown without a cost.
"""

from __future__ import annotations

from moat.api import Match, Price, ReadUsage

PRICES = (
    Price("claude-opus-4-6", 5.0, 25.0, 0.5, 6.25),
    Price("claude-opus-4-5", 5.0, 25.0, 0.5, 6.25),
    Price("claude-opus-4-1", 15.0, 75.0, 1.5, 18.75),
    Price("claude-opus-4", 15.0, 75.0, 1.5, 18.75),
    Price("claude-opus-4-0", 15.0, 75.0, 1.5, 18.75),
    Price("claude-sonnet-4-6", 3.0, 15.0, 0.3, 3.75),
    Price("claude-sonnet-4-5", 3.0, 15.0, 0.3, 3.75),
    Price("claude-sonnet-4", 3.0, 15.0, 0.3, 3.75),
    Price("claude-sonnet-4-0", 3.0, 15.0, 0.3, 3.75),
    Price("claude-3-7-sonnet", 3.0, 15.0, 0.3, 3.75),
    Price("claude-haiku-4-5", 1.0, 5.0, 0.1, 1.25),
    Price("claude-3-5-haiku", 0.8, 4.0, 0.08, 1.0),
)


def read_usage(host: str, grant: str) -> ReadUsage:
    """Return the rule that reads answers of host."""
    return ReadUsage(
        Match(host, ("POST",), ("/v1/messages",)),
        model=("model", "message.model"),
        input=("usage.input_tokens", "message.usage.input_tokens"),
        output=("usage.output_tokens", "message.usage.output_tokens"),
        cached=("usage.cache_read_input_tokens", "message.usage.cache_read_input_tokens"),
        written=("usage.cache_creation_input_tokens", "message.usage.cache_creation_input_tokens"),
        is_apart=True,
        prices=PRICES,
        grant=grant,
    )
