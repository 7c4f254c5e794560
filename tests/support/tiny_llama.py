"""Makes a language model of 2.9 million random numbers: `.venv-vllm/bin/python tests/support/tiny_llama.py DIR`.

It writes noise, but it is a model all the same: a Llama with a byte-level BPE tokenizer, trained on this repository's
documentation, and a chat template that shows messages, tools and tool calls. The same numbers and tokens each time, as
long as the documentation stays the same. It never ends by itself, only where a limit or a grammar leaves it nothing
else to say. Runs in requirements-vllm.txt's environment, which has transformers and tokenizers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
SPECIAL = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
VOCABULARY = 2_048
CONTEXT = 32_768  # tokens; what is served may be less
TEMPLATE = """
{%- if tools %}<|system|>{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|end|>{% endif -%}
{%- for message in messages %}<|{{ message.role }}|>{{ message.content or "" -}}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor -%}
<|end|>{% endfor -%}
{%- if add_generation_prompt %}<|assistant|>{% endif -%}
"""


def tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, and what is frequent in the documentation."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    texts = [path.read_text(encoding="utf-8") for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet),
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    wrapped.chat_template = TEMPLATE.strip()
    return wrapped


def main(directory: str) -> None:
    """Write the model, as Hugging Face lays one out, into a directory."""
    tokens = tokenizer()
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=16,  # a token takes some milliseconds, and the server has time for other requests
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight *= 10  # it prefers some tokens by more than what rounding makes of it
        model.lm_head.weight[tokens.eos_token_id] = 0  # of so many random numbers one is always above it
    model.save_pretrained(directory)
    tokens.save_pretrained(directory)


if __name__ == "__main__":
    main(*sys.argv[1:])
