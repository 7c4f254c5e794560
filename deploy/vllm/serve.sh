#!/bin/sh
# vLLM as the environment asks for it (docs/settings.md); what is said besides is handed on.
set -eu

case "$(printf %s "${VLLM_PREFIX_CACHING:-true}" | tr "[:upper:]" "[:lower:]")" in
  true | yes | on | 1) prefix_caching=--enable-prefix-caching ;;
  false | no | off | 0) prefix_caching=--no-enable-prefix-caching ;;
  *) echo "VLLM_PREFIX_CACHING must be true or false; it is '$VLLM_PREFIX_CACHING'" >&2; exit 2 ;;
esac

# The prompt's budget and the server's limit are one number. Whoever asks is told how much of a prompt was cached.
set -- "${LLM_MODEL:-Qwen/Qwen2.5-7B-Instruct}" \
  --max-model-len "${LLM_CONTEXT_TOKENS:-8192}" \
  --gpu-memory-utilization "${VLLM_GPU_MEMORY_SHARE:-0.90}" \
  --tensor-parallel-size "${VLLM_TENSOR_PARALLEL:-1}" \
  --pipeline-parallel-size "${VLLM_PIPELINE_PARALLEL:-1}" \
  "$prefix_caching" \
  --enable-prompt-tokens-details \
  "$@"
if [ -n "${VLLM_QUANTIZATION:-}" ]; then set -- "$@" --quantization "$VLLM_QUANTIZATION"; fi
if [ -n "${VLLM_TOOL_PARSER-hermes}" ]; then
  set -- "$@" --enable-auto-tool-choice --tool-call-parser "${VLLM_TOOL_PARSER-hermes}"
fi

# These have been read; vLLM would wonder at names of its own that it does not know.
unset VLLM_PREFIX_CACHING VLLM_GPU_MEMORY_SHARE VLLM_TENSOR_PARALLEL VLLM_PIPELINE_PARALLEL \
  VLLM_QUANTIZATION VLLM_TOOL_PARSER
exec vllm serve "$@"
