#!/usr/bin/env bash
# Runs the fuzz target: run.sh TARGET BUILD-DIRECTORY [OPTION of libFuzzer...]
#
# It begins with what the suite vm.fuzz_corpus made of real pools, and with what earlier runs found worth keeping. An input that
# fails is left in BUILD-DIRECTORY/fuzz; run the target on that file alone to see it again.
set -eu
target=$1 build=$2
shift 2
mkdir -p "$build/fuzz/corpus"
# An input is at most as long as the largest seed, and takes milliseconds. With -fork, libFuzzer would go on after an input that
# takes too long or too much.
exec "$target" -max_len=262144 -timeout=10 -rss_limit_mb=1024 -ignore_timeouts=0 -ignore_ooms=0 -print_final_stats=1 -artifact_prefix="$build/fuzz/" "$@" \
  "$build/fuzz/corpus" "$build/tests/vm.fuzz_corpus/corpus"
