#!/usr/bin/env bash
# Runs a fuzz target: run.sh NAME [OPTION of libFuzzer...]
#
# It begins with its seeds (of "metadata", those that the suite vm.fuzz_corpus made of real pools), and with what earlier runs found
# worth keeping. An input that fails is left in build/fuzz/NAME; run the target on that file alone to see it again.
set -eu
cd "$(dirname "$0")/.."
name=$1
shift
seeds=fuzz/seeds/$name
[[ $name != metadata ]] || seeds=build/tests/vm.fuzz_corpus/corpus
mkdir -p "build/fuzz/$name/corpus"
# An input of "metadata" is at most as long as the largest seed; each takes milliseconds. With -fork, libFuzzer would go on after an
# input that takes too long or too much.
exec "build-fuzz/bin/${name}_fuzz" -max_len=262144 -timeout=10 -rss_limit_mb=1024 -ignore_timeouts=0 -ignore_ooms=0 -print_final_stats=1 \
  -artifact_prefix="build/fuzz/$name/" "$@" "build/fuzz/$name/corpus" "$seeds"
