# Makefile - the front door. `make help` lists what there is.
BUILD ?= build
JOBS  ?= $(shell nproc)
CMAKE ?= cmake

# What a bare Debian 12 lacks; installed by `make test` and `make demo`, with sudo only when needed.
PACKAGES = gcc g++ make cmake ninja-build pkg-config gettext libdnnl-dev libvips-dev libjansson-dev libtomlplusplus-dev \
           libutf8proc-dev libssl-dev libpng-dev liblcms2-dev libcurl4-openssl-dev libcmocka-dev
PACKAGES_BASE  = python3 libpangocairo-1.0-0 fonts-noto-color-emoji unicode-cldr-core unicode-data
PACKAGES_DEMO  = fonts-vlgothic
PACKAGES_CLANG = clang libclang-rt-14-dev libomp-14-dev

.PHONY: all demo base score install test check-full bench asan fuzz-smoke clang packages packages-clang layers clean help

all: ## build build/kiwame
	@$(CMAKE) -S . -B $(BUILD) -G Ninja >$(BUILD).log 2>&1 || { tail -20 $(BUILD).log; echo "make: 'make packages' installs what the build needs"; exit 1; }
	@$(CMAKE) --build $(BUILD) -j $(JOBS)

packages: ## install the Debian packages that the build and the tests need
	@tools/packages $(PACKAGES)

packages-clang:
	@tools/packages $(PACKAGES_CLANG)

demo: packages ## the main job on the base that comes along: 16 pictures -> a LoRA -> pictures, in demo/
	@tools/packages $(PACKAGES_DEMO)
	@$(MAKE) --no-print-directory all
	@tools/demo $(BUILD)/kiwame demo

PREFIX ?= /usr/local
install: all ## install below PREFIX (/usr/local): program, manual page, base
	@$(CMAKE) --install $(BUILD) --prefix $(PREFIX)

BASE_WORK ?= base-work
base: packages ## train kiwame-emoji-128 from nothing, into BASE_WORK (hours; goes on where it was stopped)
	@tools/packages $(PACKAGES_BASE)
	@$(MAKE) --no-print-directory all
	@tools/base/make-base $(BUILD)/kiwame $(BASE_WORK)

score: all ## how many of 100 captions the base draws recognisably, in English and in Japanese
	@tools/base/score $(BUILD)/kiwame $(BASE)

test: packages ## build and run the tests (from a bare machine: packages first)
	@$(MAKE) --no-print-directory all
	@cd $(BUILD) && ctest --output-on-failure -j 1

check-full: test ## every other check of docs/ACCEPTANCE.md that needs no PyTorch
	@tests/check-full $(BUILD)

bench: packages ## how fast it is here, in about 2 minutes: main ops, training steps, SD 1.5, as shares of the measured peak
	@$(MAKE) --no-print-directory all
	@tools/bench $(BUILD)/kiwame

asan: packages ## the tests under the address and undefined-behaviour sanitizers
	@$(CMAKE) -S . -B $(BUILD)-asan -G Ninja -DKW_SANITIZE=ON >$(BUILD)-asan.log 2>&1 || { tail -20 $(BUILD)-asan.log; exit 1; }
	@$(CMAKE) --build $(BUILD)-asan -j $(JOBS)
	@cd $(BUILD)-asan && LSAN_OPTIONS=suppressions=$(CURDIR)/tests/lsan.supp ctest --output-on-failure -LE slow

clang: packages packages-clang ## build everything with clang
	@$(CMAKE) -S . -B $(BUILD)-clang -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ >$(BUILD)-clang.log 2>&1 || { tail -20 $(BUILD)-clang.log; exit 1; }
	@$(CMAKE) --build $(BUILD)-clang -j $(JOBS)

FUZZ_SECONDS ?= 5
fuzz-smoke: packages packages-clang ## every fuzz target for FUZZ_SECONDS under the sanitizers
	@$(CMAKE) -S . -B $(BUILD)-fuzz -G Ninja -DKW_FUZZ=ON -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ >$(BUILD)-fuzz.log 2>&1 || { tail -20 $(BUILD)-fuzz.log; exit 1; }
	@$(CMAKE) --build $(BUILD)-fuzz -j $(JOBS) --target fuzzers
	@tests/fuzz/smoke $(BUILD)-fuzz $(FUZZ_SECONDS)

layers: ## a file includes only lower layers
	@find src -name '*.[ch]' -o -name '*.cc' | sort | xargs tools/check-layers src/LAYERS

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-clang $(BUILD)-fuzz $(BUILD)*.log demo

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'
