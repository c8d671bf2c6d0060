"""What answers of the Responses and Chat Completions APIs say of tokens, and what these cost: list prices, an estimate.

OpenAI bills what it bills: batches, other tiers and contracts differ. They are those of early 2026, as in
https://openai.com/api/pricing; a model that is not here is shown without a cost.
"""

from __future__ import annotations

from moat.api import Match, Price, ReadUsage

PRICES = (
    Price("gpt-5.2", 1.75, 14.0, 0.175),
    Price("gpt-5.1", 1.25, 10.0, 0.125),
    Price("gpt-5", 1.25, 10.0, 0.125),
    Price("gpt-5-codex", 1.25, 10.0, 0.125),
    Price("gpt-5-mini", 0.25, 2.0, 0.025),
    Price("gpt-5-nano", 0.05, 0.4, 0.005),
    Price("gpt-4.1", 2.0, 8.0, 0.5),
    Price("gpt-4.1-mini", 0.4, 1.6, 0.1),
    Price("gpt-4.1-nano", 0.1, 0.4, 0.025),
    Price("gpt-4o", 2.5, 10.0, 1.25),
    Price("gpt-4o-mini", 0.15, 0.6, 0.075),
    Price("o3", 2.0, 8.0, 0.5),
    Price("o4-mini", 1.1, 4.4, 0.275),
)


def read_usage(host: str, grant: str) -> ReadUsage:
    """Return the rule that reads answers of host."""
    return ReadUsage(
        Match(host, ("POST",), ("/v1/responses", "/v1/chat/completions")),
        model=("response.model", "model"),
        input=("response.usage.input_tokens", "usage.input_tokens", "usage.prompt_tokens"),
        output=("response.usage.output_tokens", "usage.output_tokens", "usage.completion_tokens"),
        cached=(
            "response.usage.input_tokens_details.cached_tokens",
            "usage.input_tokens_details.cached_tokens",
            "usage.prompt_tokens_details.cached_tokens",
        ),
        prices=PRICES,
        grant=grant,
    )
